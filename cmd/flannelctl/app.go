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
	"flanneld/subnet/etcdv3"
)

// app is what all commands share: the flags, and ways to the daemon and to the store.
type app struct {
	subnetFile string
	stateDir   string
	json       bool
	output     string // table, json or yaml

	// How to reach the store if the daemon does not say.
	store     api.Store
	storeSet  bool // a flag says how to reach it
	endpoints []string

	out   io.Writer
	flagS *pflag.FlagSet
}

func newApp() *app { return &app{out: os.Stdout} }

// env is the value of flanneld's environment variable for a flag, or the default.
func env(flagName, otherwise string) string {
	return cmp.Or(os.Getenv("FLANNELD_"+strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))), otherwise)
}

func (a *app) flags(fs *pflag.FlagSet) {
	a.flagS = fs
	fs.StringVar(&a.subnetFile, "subnet-file", env("subnet-file", "/run/flannel/subnet.env"), "which network: the daemon's -subnet-file")
	fs.StringVar(&a.stateDir, "state-dir", env("state-dir", "/var/lib/flannel"), "the daemon's -state-dir, used while it does not run")
	fs.BoolVar(&a.json, "json", false, "print JSON, the same as -o json")
	fs.StringVarP(&a.output, "output", "o", "table", "table, json or yaml")
	fs.StringSliceVar(&a.endpoints, "etcd-endpoints", strings.Split(env("etcd-endpoints", "http://127.0.0.1:4001,http://127.0.0.1:2379"), ","), "etcd, used while the daemon does not run")
	fs.StringVar(&a.store.Prefix, "etcd-prefix", env("etcd-prefix", "/coreos.com/network"), "key of the network in etcd")
	fs.StringVar(&a.store.CAFile, "etcd-cafile", env("etcd-cafile", ""), "certificates that sign etcd's")
	fs.StringVar(&a.store.CertFile, "etcd-certfile", env("etcd-certfile", ""), "client certificate for etcd")
	fs.StringVar(&a.store.KeyFile, "etcd-keyfile", env("etcd-keyfile", ""), "key of the client certificate")
	fs.StringVar(&a.store.Username, "etcd-username", "", "user of etcd (default $FLANNELD_ETCD_USERNAME)")
}

func (a *app) check() error {
	if a.json {
		a.output = "json"
	}
	switch a.output {
	case "table", "json", "yaml":
	default:
		return usageError{fmt.Errorf("-o is %q, want table, json or yaml", a.output)}
	}
	a.flagS.VisitAll(func(f *pflag.Flag) { a.storeSet = a.storeSet || f.Changed && strings.HasPrefix(f.Name, "etcd-") })
	a.store.Endpoints = a.endpoints
	a.store.Username = cmp.Or(a.store.Username, os.Getenv("FLANNELD_ETCD_USERNAME"))
	a.store.Password = os.Getenv("FLANNELD_ETCD_PASSWORD")
	return nil
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
	return s, err
}

// open opens the store; the caller closes it.
func (a *app) open(ctx context.Context) (*etcdv3.Store, error) {
	s, err := a.access(ctx)
	if err != nil {
		return nil, err
	}
	return etcdv3.New(etcdv3.Options{
		Endpoints: s.Endpoints, Prefix: s.Prefix, CertFile: s.CertFile, KeyFile: s.KeyFile, CAFile: s.CAFile,
		Username: s.Username, Password: s.Password, Log: slog.New(slog.DiscardHandler),
	})
}
