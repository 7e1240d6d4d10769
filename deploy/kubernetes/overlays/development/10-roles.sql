-- Run once, when the data directory is new: the services and the monitor get a role each, and
-- neither is a superuser. psql reads the names and passwords from the container's environment.
\set ON_ERROR_STOP on
\getenv database POSTGRES_DB
\getenv services DB_USER
\getenv services_password DB_PASSWORD
\getenv monitor MONITOR_DB_USER
\getenv monitor_password MONITOR_DB_PASSWORD

CREATE ROLE :"services" LOGIN PASSWORD :'services_password';
-- `order-services migrate --grant` makes the tables and gives it the rights to their rows
GRANT CONNECT ON DATABASE :"database" TO :"services";

-- pg_monitor sees what other roles' connections do, and none of their rows
CREATE ROLE :"monitor" LOGIN PASSWORD :'monitor_password' IN ROLE pg_monitor;
