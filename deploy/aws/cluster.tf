resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = 90
}

resource "aws_eks_cluster" "this" {
  name                          = var.name
  version                       = var.kubernetes_version
  role_arn                      = aws_iam_role.cluster.arn
  bootstrap_self_managed_addons = false
  enabled_cluster_log_types     = ["api", "audit", "authenticator"]

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = true
  }
  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = aws_kms_key.this.arn
    }
  }
  vpc_config {
    subnet_ids              = [for subnet in aws_subnet.private : subnet.id]
    endpoint_private_access = true
    endpoint_public_access  = length(var.api_cidrs) > 0
    public_access_cidrs     = length(var.api_cidrs) > 0 ? var.api_cidrs : null
  }
  depends_on = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.cluster]
}

locals {
  pools = {
    cpu = {
      instance_type = var.cpu_pool.instance_type
      ami_type      = var.cpu_pool.arm64 ? "AL2023_ARM_64_STANDARD" : "AL2023_x86_64_STANDARD"
      least         = var.cpu_pool.least
      most          = var.cpu_pool.most
      disk_gib      = 80
      taints        = {}
    }
    gpu = {
      instance_type = var.gpu_pool.instance_type
      ami_type      = "AL2023_x86_64_NVIDIA"
      least         = var.gpu_pool.least
      most          = var.gpu_pool.most
      disk_gib      = 120
      taints        = { "nvidia.com/gpu" = "NO_SCHEDULE" }
    }
  }
}

resource "aws_launch_template" "this" {
  for_each = local.pools
  name     = "${var.name}-${each.key}"
  # A pod that asks the machine for its credentials gets no answer: the hop limit is the machine itself.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type = "gp3"
      volume_size = each.value.disk_gib
      encrypted   = true
    }
  }
}

resource "aws_eks_node_group" "this" {
  for_each        = local.pools
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for subnet in aws_subnet.private : subnet.id]
  instance_types  = [each.value.instance_type]
  ami_type        = each.value.ami_type
  labels          = { "miniml.example.com/pool" = each.key }
  scaling_config {
    min_size     = each.value.least
    max_size     = each.value.most
    desired_size = each.value.least
  }
  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }
  dynamic "taint" {
    for_each = each.value.taints
    content {
      key    = taint.key
      value  = "present"
      effect = taint.value
    }
  }
  update_config {
    max_unavailable = 1
  }
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the cluster's autoscaler's business
  }
  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.first]
}

# Before the nodes, which are not ready without a network; the others want nodes to run on.
resource "aws_eks_addon" "first" {
  for_each = {
    # Network policies are kept by the plugin itself, if it is told.
    vpc-cni                = jsonencode({ enableNetworkPolicy = "true" })
    kube-proxy             = null
    eks-pod-identity-agent = null
  }
  cluster_name         = aws_eks_cluster.this.name
  addon_name           = each.key
  configuration_values = each.value
}

resource "aws_eks_addon" "then" {
  for_each     = toset(["coredns", "aws-ebs-csi-driver"])
  cluster_name = aws_eks_cluster.this.name
  addon_name   = each.key
  depends_on   = [aws_eks_node_group.this]
}
