# Two, as in deploy/k8s: what Ray's head knows must not be evicted, known answers may be. In the place of
# the Redises in the cluster; docs/aws.md says how they are put there.
resource "aws_elasticache_subnet_group" "this" {
  name       = var.name
  subnet_ids = [for subnet in aws_subnet.private : subnet.id]
}

resource "aws_security_group" "redis" {
  name        = "${var.name}-redis"
  description = "Redis, from the cluster's nodes"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "redis" {
  security_group_id            = aws_security_group.redis.id
  description                  = "Redis from the cluster"
  referenced_security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

locals {
  redis = {
    gcs   = "noeviction"
    cache = "allkeys-lru"
  }
}

resource "aws_elasticache_parameter_group" "this" {
  for_each = local.redis
  name     = "${var.name}-${each.key}"
  family   = "redis7"
  parameter {
    name  = "maxmemory-policy"
    value = each.value
  }
}

resource "aws_elasticache_replication_group" "this" {
  for_each                   = local.redis
  replication_group_id       = "${var.name}-${each.key}"
  description                = "${var.name}: ${each.key}"
  engine                     = "redis"
  engine_version             = "7.1"
  node_type                  = var.redis_node_type
  num_cache_clusters         = 2
  automatic_failover_enabled = true
  multi_az_enabled           = true
  parameter_group_name       = aws_elasticache_parameter_group.this[each.key].name
  subnet_group_name          = aws_elasticache_subnet_group.this.name
  security_group_ids         = [aws_security_group.redis.id]
  transit_encryption_enabled = true
  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.this.arn
  auth_token                 = var.redis_password
  snapshot_retention_limit   = each.key == "gcs" ? 1 : 0
}
