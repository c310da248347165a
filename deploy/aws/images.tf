# One repository an image. A tag, once pushed, means the same image for ever: an image holds a package.
resource "aws_ecr_repository" "this" {
  for_each             = toset(["serve", "serve-gpu", "jobs"])
  name                 = "${var.name}/${each.key}"
  image_tag_mutability = "IMMUTABLE"
  image_scanning_configuration {
    scan_on_push = true
  }
  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.this.arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each   = aws_ecr_repository.this
  repository = each.value.name
  policy     = file("${path.module}/policies/images.json")
}
