# Two web servers with addresses of the overlay network, on different hosts: nomad job run web.nomad.hcl
# Each client has flanneld, the plugin and a configuration of CNI with the name "flannel": docs/runtimes.md.
job "web" {
  type = "service"

  group "web" {
    count = 2

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      mode = "cni/flannel"
      port "http" {
        static = 8080
        to     = 80
      }
    }

    service {
      name         = "web"
      port         = "http"
      provider     = "nomad"
      address_mode = "alloc"
    }

    task "nginx" {
      driver = "docker"
      config {
        image = "nginx:stable"
        ports = ["http"]
      }
      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
