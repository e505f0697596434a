// This file is the scheduler as its Supabase edge function: Deno, npm:pg, pages, Promise.all, a semaphore.
//
// A page begins when the one before has been answered for altogether, and the guard is looked at between
// pages, both as the task's own implementation notes have it.
import { timingSafeEqual } from "node:crypto";
import pg from "npm:pg@8";

const PAGE_SIZE = Number(Deno.env.get("PAGE_SIZE") ?? "100");
const MAX_CONCURRENCY = 10;
const TIMEOUT_THRESHOLD_MS = Number(Deno.env.get("TIMEOUT_THRESHOLD_MS") ?? "25000");
const INVOCATION_TIMEOUT_MS = 5000;
const SECRET = new TextEncoder().encode(Deno.env.get("SCHEDULER_SECRET")!);
const TRIGGER_ENGINE_URL = Deno.env.get("TRIGGER_ENGINE_URL")!;
const SERVICE_ROLE_KEY = Deno.env.get("SUPABASE_SERVICE_ROLE_KEY")!;
const FIRST_CURSOR = "00000000-0000-0000-0000-000000000000";

const ELIGIBLE = `
  status = 'active' and id > $1 and exists (
    select 1 from assignments a where a.mentor_id = peer_mentors.id and a.status = 'active')`;
const PAGE = `select id from peer_mentors where ${ELIGIBLE} order by id limit $2`;
const COUNT = `select count(*)::int as count from peer_mentors where ${ELIGIBLE}`;

const pool = new pg.Pool({ connectionString: Deno.env.get("DATABASE_URL"), max: 2 });

class Semaphore {
  #free: number;
  #waiting: (() => void)[] = [];

  constructor(places: number) {
    this.#free = places;
  }

  async acquire(): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  release(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free++;
  }
}

function authorized(request: Request): boolean {
  const given = new TextEncoder().encode(request.headers.get("X-Scheduler-Secret") ?? "");
  return given.length === SECRET.length && timingSafeEqual(given, SECRET);
}

async function evaluate(mentorId: string, runId: string) {
  const response = await fetch(TRIGGER_ENGINE_URL, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      "Authorization": `Bearer ${SERVICE_ROLE_KEY}`,
    },
    body: JSON.stringify({ mentor_id: mentorId, scenario_types: null, dry_run: false, run_id: runId }),
    signal: AbortSignal.timeout(INVOCATION_TIMEOUT_MS),
  });
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`trigger engine answered ${response.status}`);
  }
  return await response.json() as { dispatched: string[]; suppressed: string[] };
}

async function run() {
  const startTime = Date.now();
  const runId = crypto.randomUUID();
  const semaphore = new Semaphore(MAX_CONCURRENCY);
  let evaluated = 0, dispatched = 0, suppressed = 0, errors = 0, unprocessed = 0;
  let cursor = FIRST_CURSOR;

  while (true) {
    if (Date.now() - startTime > TIMEOUT_THRESHOLD_MS) {
      unprocessed = (await pool.query(COUNT, [cursor])).rows[0].count;
      console.warn(`time is up, ${unprocessed} mentors were not processed`);
      break;
    }
    const { rows } = await pool.query(PAGE, [cursor, PAGE_SIZE]);
    await Promise.all(rows.map(async ({ id }: { id: string }) => {
      await semaphore.acquire();
      try {
        const result = await evaluate(id, runId);
        evaluated++;
        dispatched += result.dispatched.length;
        suppressed += result.suppressed.length;
      } catch (error) {
        errors++;
        console.error(`mentor could not be evaluated: ${error}`);
      } finally {
        semaphore.release();
      }
    }));
    if (rows.length < PAGE_SIZE) break;
    cursor = rows[rows.length - 1].id;
  }

  return {
    total_active_mentors: evaluated + errors + unprocessed,
    total_evaluated: evaluated,
    total_dispatched: dispatched,
    total_suppressed: suppressed,
    total_errors: errors,
    duration_ms: Date.now() - startTime,
    completed: unprocessed === 0,
  };
}

Deno.serve(async (request) => {
  if (request.method !== "POST") return new Response(null, { status: 405 });
  if (!authorized(request)) return new Response(null, { status: 401 });
  return Response.json(await run());
});
