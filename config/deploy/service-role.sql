-- The role of the service: it owns no table. `rollout db grant rollout_service` gives it what it needs.
\getenv password SERVICE_PASSWORD
create role rollout_service login password :'password';
