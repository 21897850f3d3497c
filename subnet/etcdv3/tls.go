package etcdv3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"flanneld/subnet"
)

// transport makes the connections to the endpoints: with TLS, or in plain text where the URL of the endpoint says so.
//
// The certificate of the server is verified by the standard library, against the host of the endpoint's URL, name or
// address. All files are read again for each connection, so that certificates renewed on disk are used without a
// restart.
type transport struct {
	o     Options
	plain map[string]bool // HOST:PORT of the endpoints without TLS
}

// newTransport returns nil if no endpoint uses TLS.
func newTransport(o Options) (credentials.TransportCredentials, error) {
	t := &transport{o: o, plain: map[string]bool{}}
	encrypted := map[string]bool{}
	for _, e := range o.Endpoints {
		host := hostOf(e)
		if o.usesTLS(e) {
			encrypted[host] = true
		} else {
			t.plain[host] = true
		}
	}
	for host := range encrypted {
		delete(t.plain, host)
	}
	if _, err := t.config(); err != nil {
		return nil, err
	}
	if len(encrypted) == 0 {
		return nil, nil
	}
	return t, nil
}

// usesTLS reports whether an endpoint is spoken to with TLS: as its scheme says, else if there are files for it.
func (o Options) usesTLS(endpoint string) bool {
	switch scheme, _, _ := strings.Cut(endpoint, ":"); scheme {
	case "https", "unixs":
		return true
	case "http":
		return false
	}
	return o.CAFile != "" || o.CertFile != ""
}

// hostOf returns what clientv3 takes for the name of the server: HOST:PORT for an HTTP URL.
func hostOf(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		return u.Host
	}
	return endpoint
}

// config returns the configuration of a connection that is made now.
func (t *transport) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.o.CertFile != "" {
		pair, err := readPair(t.o.CertFile, t.o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if t.o.CAFile != "" {
		pool, err := readCA(t.o.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
	}
	return c, nil
}

// maxPEM bounds a file of certificates, in bytes: the largest bundles of public authorities have some 300 kB.
const maxPEM = 4 << 20

func readPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := subnet.ReadFile(certFile, maxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := subnet.ReadFile(keyFile, maxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

func readCA(path string) (*x509.CertPool, error) {
	text, err := subnet.ReadFile(path, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("etcd certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("etcd certificate authority %s: no certificate in PEM form", path)
	}
	return pool, nil
}

// ClientHandshake implements credentials.TransportCredentials. The authority is the host of the endpoint's URL, with
// its port.
func (t *transport) ClientHandshake(ctx context.Context, authority string,
	c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if t.plain[authority] {
		return insecure.NewCredentials().ClientHandshake(ctx, authority, c)
	}
	config, err := t.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, serverName(authority), c)
}

// serverName returns the name or address that the certificate must have been issued for. The zone of an address says
// only on which link of this host it is.
func serverName(authority string) string {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return a.WithZone("").String()
	}
	return host
}

// ServerHandshake implements credentials.TransportCredentials.
func (t *transport) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("credentials of a client")
}

// Info implements credentials.TransportCredentials.
func (t *transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (t *transport) Clone() credentials.TransportCredentials { return t }

// OverrideServerName implements credentials.TransportCredentials. The name is always that of the endpoint.
func (t *transport) OverrideServerName(string) error { return nil }
