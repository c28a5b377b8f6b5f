-- Roles that own no table. `rollout db grant` gives each what it needs.
\getenv service SERVICE_PASSWORD
\getenv backup BACKUP_PASSWORD
create role rollout_service login password :'service';
create role rollout_backup login password :'backup';
