# Who may do what. Pods get their rights by their service account (EKS pod identity), not by their node,
# whose own are to be a node and to pull images.
locals {
  # role -> the service account whose pods have it, and what the policy names
  pods = {
    jobs = {
      namespace = "miniml"
      account   = "miniml-jobs"
      values = {
        raw      = aws_s3_bucket.this["raw"].arn
        hub      = aws_s3_bucket.this["hub"].arn
        registry = aws_s3_bucket.this["registry"].arn
        key      = aws_kms_key.this.arn
      }
    }
    serve = {
      namespace = "miniml"
      account   = "miniml-serve"
      values = {
        registry = aws_s3_bucket.this["registry"].arn
        key      = aws_kms_key.this.arn
      }
    }
    autoscaler = {
      namespace = "kube-system"
      account   = "cluster-autoscaler"
      values = {
        partition = local.partition
        region    = var.region
        account   = local.account
        cluster   = var.name
      }
    }
  }
  attached = {
    cluster = ["AmazonEKSClusterPolicy"]
    node = [
      "AmazonEKSWorkerNodePolicy",
      "AmazonEC2ContainerRegistryPullOnly",
      "AmazonEKS_CNI_Policy",
      "service-role/AmazonEBSCSIDriverPolicy",
    ]
  }
}

resource "aws_iam_role" "pod" {
  for_each           = local.pods
  name               = "${var.name}-${each.key}"
  assume_role_policy = file("${path.module}/policies/trust-pods.json")
}

resource "aws_iam_role_policy" "pod" {
  for_each = local.pods
  role     = aws_iam_role.pod[each.key].id
  policy   = templatefile("${path.module}/policies/${each.key}.json", each.value.values)
}

resource "aws_eks_pod_identity_association" "this" {
  for_each        = local.pods
  cluster_name    = aws_eks_cluster.this.name
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.pod[each.key].arn
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = file("${path.module}/policies/trust-eks.json")
}

resource "aws_iam_role_policy_attachment" "cluster" {
  for_each   = toset(local.attached.cluster)
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.key}"
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = file("${path.module}/policies/trust-ec2.json")
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each   = toset(local.attached.node)
  role       = aws_iam_role.node.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.key}"
}

# The workflow that builds images, without a key of its own: GitHub says which repository and branch it is.
resource "aws_iam_openid_connect_provider" "github" {
  count          = var.github_repository == "" ? 0 : 1
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "images" {
  count = var.github_repository == "" ? 0 : 1
  name  = "${var.name}-images"
  assume_role_policy = templatefile("${path.module}/policies/trust-github.json", {
    provider   = aws_iam_openid_connect_provider.github[0].arn
    repository = var.github_repository
  })
}

resource "aws_iam_role_policy" "images" {
  count = var.github_repository == "" ? 0 : 1
  role  = aws_iam_role.images[0].id
  policy = templatefile("${path.module}/policies/push.json", {
    repositories = jsonencode([for repository in aws_ecr_repository.this : repository.arn])
  })
}
