variable "name" {
  description = "What everything is named after."
  type        = string
  default     = "miniml"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "A name is 2 to 21 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "region" {
  description = "Where all of it lies."
  type        = string
}

variable "kubernetes_version" {
  description = "Of the cluster; the manifests are checked against the schemas of 1.32."
  type        = string
  default     = "1.32"
}

variable "cidr" {
  description = "Addresses of the network, a /16."
  type        = string
  default     = "10.42.0.0/16"
}

variable "zones" {
  description = "In how many availability zones."
  type        = number
  default     = 3
}

variable "nat_gateways" {
  description = "One for all zones is cheaper, one a zone survives the loss of one."
  type        = number
  default     = 1
}

variable "api_cidrs" {
  description = "Who may reach the cluster's API from the internet; empty: nobody, it is private."
  type        = list(string)
  default     = []
}

variable "cpu_pool" {
  description = "Nodes that serve, and export, on CPUs. Graviton wants images built for arm64."
  type = object({
    instance_type = optional(string, "m7g.xlarge")
    arm64         = optional(bool, true)
    least         = optional(number, 3)
    most          = optional(number, 12)
  })
  default = {}
}

variable "gpu_pool" {
  description = "Nodes with a GPU: x86, since ONNX Runtime has no CUDA wheel for arm64. None unless needed."
  type = object({
    instance_type = optional(string, "g6.xlarge")
    least         = optional(number, 0)
    most          = optional(number, 4)
  })
  default = {}
}

variable "redis_node_type" {
  description = "Of both caches."
  type        = string
  default     = "cache.t4g.small"
}

variable "redis_password" {
  description = "16 letters and digits or more; the same as in the secret miniml-redis."
  type        = string
  sensitive   = true
}

variable "github_repository" {
  description = "OWNER/NAME whose main branch may push images; empty: none."
  type        = string
  default     = ""
}
