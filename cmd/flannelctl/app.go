package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"flanneld/api"
	"flanneld/options"
	"flanneld/subnet/etcdv3"
)

// app is what all commands share: the flags, and ways to the daemon and to the store.
type app struct {
	subnetFile string
	stateDir   string
	confDir    string
	json       bool
	output     string // table, wide, json or yaml

	// How to reach the store if the daemon does not say.
	store     api.Store
	storeSet  bool   // a flag says how to reach it
	storeFrom string // what else says so
	endpoints string

	out   io.Writer
	flagS *pflag.FlagSet
}

func newApp(out io.Writer) *app { return &app{out: out} }

// inherited are the flags that the daemon has too. A flag that is not given has the daemon's value: from its
// variables, else from its environment file.
func (a *app) inherited() map[string]*string {
	return map[string]*string{
		"subnet-file": &a.subnetFile, "state-dir": &a.stateDir, "etcd-endpoints": &a.endpoints,
		"etcd-prefix": &a.store.Prefix,
		"etcd-cafile": &a.store.CAFile, "etcd-certfile": &a.store.CertFile, "etcd-keyfile": &a.store.KeyFile,
		"etcd-username": &a.store.Username,
		"etcd-password": &a.store.Password, // has no flag here: others can read a command line
	}
}

func (a *app) flags(fs *pflag.FlagSet) {
	a.flagS = fs
	daemon := options.Defaults()
	fs.StringVar(&a.subnetFile, "subnet-file", daemon.SubnetFile, "`file` of the network's daemon: its -subnet-file")
	fs.StringVar(&a.stateDir, "state-dir", daemon.StateDir,
		"`folder` of the daemon's state: its -state-dir; used while no daemon runs")
	fs.StringVar(&a.confDir, "config-dir", "/etc/flannel",
		"`folder` of the daemon's environment files; used while no daemon runs")
	fs.BoolVar(&a.json, "json", false, "print JSON, the same as -o json")
	fs.StringVarP(&a.output, "output", "o", "table", "output `format`: table, wide, json or yaml")
	fs.StringVar(&a.endpoints, "etcd-endpoints", strings.Join(daemon.EtcdEndpoints, ","),
		"comma-separated `URLs` of etcd; used while no daemon runs")
	fs.StringVar(&a.store.Prefix, "etcd-prefix", daemon.EtcdPrefix, "`key` of the network in etcd")
	fs.StringVar(&a.store.CAFile, "etcd-cafile", "", "`file` with the certificates of etcd's authority")
	fs.StringVar(&a.store.CertFile, "etcd-certfile", "", "`file` with the client certificate for etcd")
	fs.StringVar(&a.store.KeyFile, "etcd-keyfile", "", "`file` with the key of the client certificate")
	fs.StringVar(&a.store.Username, "etcd-username", "", "etcd `user`; the password is taken from $FLANNELD_ETCD_PASSWORD")
}

// check completes the flags and refuses those that make no sense.
func (a *app) check() error {
	if a.json {
		a.output = "json"
	}
	switch a.output {
	case "table", "wide", "json", "yaml":
	default:
		return usageError{fmt.Errorf("-o is %q, want table, wide, json or yaml", a.output)}
	}
	a.flagS.VisitAll(func(f *pflag.Flag) { a.storeSet = a.storeSet || f.Changed && strings.HasPrefix(f.Name, "etcd-") })
	a.inherit()
	if a.subnetFile == "" {
		return usageError{errors.New("--subnet-file is empty, want a path such as " + options.Defaults().SubnetFile)}
	}
	a.store.Endpoints = splitComma(a.endpoints)
	return nil
}

// inherit gives flags that were not given the daemon's values.
func (a *app) inherit() {
	given := func(name string) bool { f := a.flagS.Lookup(name); return f != nil && f.Changed }
	file := os.Getenv(options.Variable("subnet-file"))
	if given("subnet-file") {
		file = a.subnetFile
	}
	conf, path := readConf(a.confDir, file)
	a.storeFrom = "the defaults of flannelctl"
	if path != "" {
		a.storeFrom = path
	}
	for name, value := range a.inherited() {
		if v := cmp.Or(os.Getenv(options.Variable(name)), conf[name]); v != "" && !given(name) {
			*value = v
		}
	}
	if os.Getenv(options.Variable("etcd-endpoints")) != "" {
		a.storeFrom = "$" + options.Variable("etcd-endpoints")
	}
}

// daemon returns the client of the daemon.
func (a *app) daemon() *api.Client { return api.NewClient(a.subnetFile) }

// ask reads one page of the daemon.
func ask[T any](ctx context.Context, a *app, path string) (T, error) {
	var v T
	err := a.daemon().Get(ctx, path, &v)
	return v, err
}

// access says how to reach the store: as the flags say, else as the daemon does, else as flanneld would by default.
func (a *app) access(ctx context.Context) (api.Store, error) {
	if a.storeSet {
		return a.store, nil
	}
	s, err := ask[api.Store](ctx, a, api.PathStore)
	if errors.Is(err, api.ErrNoDaemon) {
		return a.store, nil
	}
	a.storeFrom = "the daemon"
	return s, err
}

// open opens the store; the caller closes it.
func (a *app) open(ctx context.Context) (*etcdv3.Store, error) {
	s, err := a.access(ctx)
	if err != nil {
		return nil, err
	}
	if s.Kubernetes {
		return nil, errors.New("the store of this network is the Kubernetes API, not etcd: use kubectl (get nodes, edit " +
			"configmap), or flannelctl peers")
	}
	return etcdv3.New(etcdv3.Options{
		Endpoints: s.Endpoints, Prefix: s.Prefix, CertFile: s.CertFile, KeyFile: s.KeyFile, CAFile: s.CAFile,
		Username: s.Username, Password: s.Password, Log: slog.New(slog.DiscardHandler),
	})
}
