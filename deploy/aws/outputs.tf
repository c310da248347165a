output "cluster" {
  description = "aws eks update-kubeconfig --name ..."
  value       = aws_eks_cluster.this.name
}

output "repositories" {
  description = "For `images:` of an overlay: newName."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "buckets" {
  description = "For SOURCE of the pipeline, and for MLflow's artifacts (registry)."
  value       = { for name, bucket in aws_s3_bucket.this : name => bucket.id }
}

output "redis" {
  description = "Hosts that are in the place of miniml-redis-gcs and miniml-redis-cache, by TLS."
  value = {
    for name, group in aws_elasticache_replication_group.this : name => group.primary_endpoint_address
  }
}

output "roles" {
  description = "What pods may do; bound to their service accounts already."
  value       = { for name, role in aws_iam_role.pod : name => role.arn }
}
