// Command apiserver is an API server of Kubernetes that has nodes and pods alone.
//
// It is Kubernetes' own library, k8s.io/apiserver, which kube-apiserver is made of: the handlers of requests and
// patches, the watch cache with its streaming list, and the storage in etcd, in the form of kube-apiserver. What this
// program adds is what a Node object may hold, cut down to what flanneld meets, and who may do what: clients are known
// by certificates, system:masters may do all, and others what a ClusterRole grants. It compiles in a fraction of the
// time of kube-apiserver.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

// options are the command line.
type options struct {
	listen, etcd   string
	cert, key, ca  string // files of the server; ca signs clients
	rights         string // file with a ClusterRole, read at each request
	requests       string // file to write requests to
	streamingLists bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "", "`address` and port to serve HTTPS on")
	flag.StringVar(&o.etcd, "etcd", "", "`URL` of etcd")
	flag.StringVar(&o.cert, "cert", "", "certificate `file`")
	flag.StringVar(&o.key, "key", "", "`file` with its key")
	flag.StringVar(&o.ca, "ca", "", "`file` with the authority of clients' certificates")
	flag.StringVar(&o.rights, "rights", "", "manifest `file` with the ClusterRole of all who are not in system:masters")
	flag.StringVar(&o.requests, "requests", "", "`file` to write their requests to")
	flag.BoolVar(&o.streamingLists, "streaming-lists", true, "answer streaming lists")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	gate := map[string]bool{"WatchList": o.streamingLists}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(gate); err != nil {
		return fmt.Errorf("set feature gate: %w", err)
	}
	authority, err := os.ReadFile(o.ca)
	if err != nil {
		return fmt.Errorf("read authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return errors.New("-ca holds no certificate")
	}
	requests, err := os.OpenFile(o.requests, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the file of requests: %w", err)
	}
	api, err := newAPI(o.etcd)
	if err != nil {
		return err
	}
	s := http.Server{
		Addr: o.listen, Handler: &gatekeeper{api: api, rights: o.rights, requests: requests},
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert},
	}
	return s.ListenAndServeTLS(o.cert, o.key)
}
