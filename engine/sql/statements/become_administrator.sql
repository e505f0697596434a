-- Be who logged in again. No parameters.
reset role
