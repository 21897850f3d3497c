package options

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"flanneld/subnet"
)

// maxJoin bounds a file with what -join takes, in bytes.
const maxJoin = 64 << 10

// joining reads TOKEN@HOST[:PORT],..., or @FILE with that in it, at once. Nothing of it is shown.
func joining(p *Secret) value[Secret] {
	v := secret(p)
	v.parse = func(s string) (Secret, error) {
		if file, ok := strings.CutPrefix(s, "@"); ok {
			text, err := subnet.ReadFile(file, maxJoin)
			if err != nil {
				return "", fmt.Errorf("want TOKEN@HOST or @FILE: %w", err)
			}
			s = strings.TrimSpace(string(text))
		}
		if s == "" {
			return "", nil
		}
		token, hosts := Options{Join: Secret(s)}.Joins()
		if token == "" || len(hosts) == 0 {
			return "", errors.New("want TOKEN@HOST, with the token that \"flannelctl token create\" has printed on a member " +
				"of the store, and the member's address")
		}
		for _, h := range hosts {
			if strings.ContainsAny(h, "/@ ") {
				return "", errors.New("want an address or a name, with or without a port, after the token")
			}
		}
		return Secret(s), nil
	}
	return v
}

// Joins returns the token of -join, and where members of the store let hosts in: HOST or HOST:PORT.
func (o Options) Joins() (token string, hosts []string) {
	token, rest, _ := strings.Cut(string(o.Join), "@")
	return token, elements(rest)
}

// JoinServices returns HOST:PORT of the members that -join names.
func (o Options) JoinServices() []string {
	_, hosts := o.Joins()
	out := make([]string, len(hosts))
	for i, h := range hosts {
		if out[i] = h; !hasPort(h) {
			out[i] = net.JoinHostPort(strings.Trim(h, "[]"), strconv.Itoa(int(o.JoinPort)))
		}
	}
	return out
}

func hasPort(host string) bool {
	_, _, err := net.SplitHostPort(host)
	return err == nil
}

// joinEndpoints returns where the etcd of members is likely to be, until they say so themselves.
func joinEndpoints(hosts []string) []string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		if name, _, err := net.SplitHostPort(h); err == nil {
			h = name
		}
		out[i] = "https://" + net.JoinHostPort(strings.Trim(h, "[]"), etcdPort)
	}
	return out
}

// etcdPort is the usual port of etcd for its clients.
const etcdPort = "2379"

// validateSecured says what does not go together of the flags for secured stores.
func (o Options) validateSecured() []error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.EtcdEmbeddedSecure && o.EtcdEmbeddedInsecure {
		fail("%s and %s are both true: want one of them at most", Named("etcd-embedded-secure"),
			Named("etcd-embedded-insecure"))
	}
	if (o.EtcdEmbeddedSecure || o.Join != "") && (o.EtcdCAFile != "" || o.EtcdCertfile != "" || o.EtcdUsername != "") {
		fail("a secured embedded etcd brings its own certificates and users: want neither -etcd-cafile, -etcd-certfile nor " +
			"-etcd-username with -etcd-embedded-secure or -join")
	}
	if o.Join == "" {
		return errs
	}
	if o.EtcdEmbedded && o.EtcdEmbeddedInsecure {
		fail("%s and %s are both given: the store that this host joins is secured", Named("join"),
			Named("etcd-embedded-insecure"))
	}
	if o.EtcdEmbedded && o.EtcdEmbeddedListen.Addr().IsLoopback() {
		fail("%s and %s are both given: other members must reach this one, give -etcd-embedded-listen ADDRESS:2379",
			Named("join"), Named("etcd-embedded"))
	}
	if o.KubeSubnetMgr {
		fail("%s is given with the Kubernetes API as the store: there is no etcd to join", Named("join"))
	}
	if o.NetworkConfig != "" {
		fail("%s is given with -network-config: the network configuration is that of the store, and is changed on a member",
			Named("join"))
	}
	return errs
}
