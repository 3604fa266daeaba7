-- One database each: none of the four would expect the tables of another.
create database mlflow;
create database release;
create database feast;
create database events;
