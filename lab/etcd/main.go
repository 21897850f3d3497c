// Command etcd is the etcd server as its module has it, so that tests need no other source of it.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
