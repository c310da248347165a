# MLflow's own image, with what it needs to speak to Postgres and S3, and to ask for passwords.
FROM ghcr.io/mlflow/mlflow:v3.17.0
RUN pip install --no-cache-dir boto3==1.43.117 flask-wtf==1.3.0 psycopg2-binary==2.9.11
USER 65532:65532
