-- Until the end of the transaction, act as scheduler_service. No parameters.
set local role scheduler_service
