-- Until the end of the transaction, plan as for tables too large to be read whole: whatever an index can do, it does,
-- on an empty table too. No parameters.
set local enable_seqscan = off;
set local enable_bitmapscan = off;
set local enable_sort = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local enable_material = off;
set local jit = off
