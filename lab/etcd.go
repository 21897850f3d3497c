package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Prefix is the key below which the lab's network lives in etcd.
const Prefix = "/coreos.com/network"

// Etcd is a store of one member on a machine of its own. Its data outlive Stop and Kill.
type Etcd struct {
	*Namespace
	*Process
	Addr  netip.Addr // on the underlay; the zero value where the lab does not have the family
	Addr6 netip.Addr

	lab  *Lab
	name string
	dir  string
	args []string
}

// Etcd starts a store. args are added to its command line.
func (l *Lab) Etcd(ctx context.Context, name string, args ...string) (*Etcd, error) {
	n, err := l.namespace(name)
	if err != nil {
		return nil, err
	}
	e := &Etcd{Namespace: n, lab: l, name: name, dir: filepath.Join(l.dir, name), args: args}
	if e.Addr, e.Addr6, err = l.connect(n, l.o.Families); err != nil {
		return nil, err
	}
	return e, e.Start(ctx)
}

// URL returns where hosts reach the store: by IPv4 if the lab has it.
func (e *Etcd) URL() string { return e.urls()[0] }

// URLFor returns where one host reaches the store.
func (e *Etcd) URLFor(h *Host) string {
	urls := e.urls()
	if !h.Addr.IsValid() {
		return urls[len(urls)-1]
	}
	return urls[0]
}

// urls returns where the store listens on the underlay, IPv4 first.
func (e *Etcd) urls() []string {
	var urls []string
	for _, a := range e.addrs() {
		urls = append(urls, "http://"+netip.AddrPortFrom(a, 2379).String())
	}
	return urls
}

// addrs returns its addresses on the underlay, IPv4 first.
func (e *Etcd) addrs() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{e.Addr, e.Addr6}, func(a netip.Addr) bool { return !a.IsValid() })
}

// socket is where the lab itself reaches it, from outside its namespace.
func (e *Etcd) socket() string { return filepath.Join(e.dir, "client.sock") }

// Start starts the store again, and returns when it answers.
func (e *Etcd) Start(ctx context.Context) error {
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return fmt.Errorf("create etcd's folder: %w", err)
	}
	_ = os.Remove(e.socket()) // of one that was killed
	listen := strings.Join(append(e.urls(), "unix://"+e.socket()), ",")
	args := append([]string{
		e.lab.o.Binaries.Etcd, "--name", e.name, "--data-dir", filepath.Join(e.dir, "data"),
		"--listen-client-urls", listen, "--advertise-client-urls", e.URL(),
		"--unsafe-no-fsync", "--log-level", "warn",
	}, e.args...)
	p, err := e.start(filepath.Join(e.dir, "etcd.log"), nil, args...)
	if err != nil {
		return err
	}
	e.Process = p
	return e.answers(ctx)
}

// answers waits until the store does.
func (e *Etcd) answers(ctx context.Context) error {
	c, err := e.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	return Await(ctx, func() error {
		select {
		case <-e.Done():
			return fmt.Errorf("etcd has ended:\n%s", lastLines(e.Log(), 20))
		default:
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := c.Get(ctx, "health"); !errors.Is(err, rpctypes.ErrUserEmpty) { // which is an answer, too
			return err
		}
		return nil
	})
}

// Wipe ends the store without a warning, deletes its data, and starts it again, empty.
func (e *Etcd) Wipe(ctx context.Context) error {
	e.Kill()
	if err := os.RemoveAll(filepath.Join(e.dir, "data")); err != nil {
		return fmt.Errorf("wipe etcd: %w", err)
	}
	return e.Start(ctx)
}

// Client returns a client, to be closed by the caller.
func (e *Etcd) Client() (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + e.socket()}, DialTimeout: 5 * time.Second,
		Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	return c, nil
}

// do calls f with a client.
func (e *Etcd) do(f func(c *clientv3.Client) error) error {
	c, err := e.Client()
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

// Put writes a key below Prefix, such as "config", without a lease.
func (e *Etcd) Put(ctx context.Context, key, value string) error {
	return e.do(func(c *clientv3.Client) error {
		_, err := c.Put(ctx, Prefix+"/"+key, value)
		return err
	})
}

// Delete deletes a key below Prefix.
func (e *Etcd) Delete(ctx context.Context, key string) error {
	return e.do(func(c *clientv3.Client) error {
		_, err := c.Delete(ctx, Prefix+"/"+key)
		return err
	})
}

// Records returns the values of all records by their keys, such as "10.5.34.0-24".
func (e *Etcd) Records(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	err := e.do(func(c *clientv3.Client) error {
		resp, err := c.Get(ctx, Prefix+"/subnets/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			out[strings.TrimPrefix(string(kv.Key), Prefix+"/subnets/")] = string(kv.Value)
		}
		return nil
	})
	return out, err
}
