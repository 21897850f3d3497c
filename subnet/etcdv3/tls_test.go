package etcdv3_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"flanneld/need"
	"flanneld/subnet/etcdv3"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	})
	return a
}

// issue signs a certificate for a new key; the first one of an authority is signed by itself.
func (a *authority) issue(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotBefore = time.Now().Add(-time.Hour); c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// write puts a certificate for this machine, its key and the authority's certificate into a folder.
func (a *authority) write(dir, name string) {
	a.t.Helper()
	a.writeFor(dir, name, x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

// writeFor is write with the addresses, names and times of the given certificate.
func (a *authority) writeFor(dir, name string, c x509.Certificate) {
	a.t.Helper()
	c.Subject, c.KeyUsage = pkix.Name{CommonName: name}, x509.KeyUsageDigitalSignature
	if c.ExtKeyUsage == nil {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	cert, key := a.issue(&c)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: cert.Raw},
		name + ".key": {Type: "EC PRIVATE KEY", Bytes: der},
		"ca.crt":      {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		// etcd may read the file at this moment: it must not see half of it.
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			a.t.Fatal(err)
		}
	}
}

// withTLS has a member demand certificates of the authority in the folder.
func withTLS(dir string) func(*embed.Config) {
	file := func(name string) string { return filepath.Join(dir, name) }
	return func(c *embed.Config) {
		c.ListenClientUrls = []url.URL{{Scheme: "https", Host: c.ListenClientUrls[0].Host}}
		c.ClientTLSInfo = transport.TLSInfo{CertFile: file("server.crt"), KeyFile: file("server.key"),
			TrustedCAFile: file("ca.crt"), ClientCertAuth: true}
	}
}

// etcdWithTLS starts a member that demands certificates of an authority, whose files it writes to a folder, and returns
// how to reach it.
func etcdWithTLS(t *testing.T, dir string) (*etcd, etcdv3.Options) {
	t.Helper()
	a := newAuthority(t, "first")
	a.write(dir, "server")
	a.write(dir, "client")
	e := startEtcd(t, withTLS(dir))
	file := func(name string) string { return filepath.Join(dir, name) }
	return e, etcdv3.Options{Endpoints: []string{"https://" + e.addr}, CAFile: file("ca.crt"),
		CertFile: file("client.crt"), KeyFile: file("client.key")}
}

func TestCertificatesThatAreRenewedOnDiskAreUsedWithoutARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, o := etcdWithTLS(t, dir)
	s := newStore(t, o)
	if err := s.PutConfig(t.Context(), nil, netConfig); err != nil {
		t.Fatal(err)
	}
	h := startHost(t, 1, s)
	need.Until(t, "the host holds a subnet", noticed, h.held)

	second := newAuthority(t, "second")
	e.stop()
	second.write(dir, "server")
	second.write(dir, "client")
	need.Until(t, "the host notices", 15*time.Second, func() bool { return !h.keeper.Status().StoreSince.IsZero() })
	e.start()
	need.Until(t, "the host is back with the new certificates", noticed, h.held)
}

func TestAStoreOfAnotherAuthorityIsRefusedAndNamed(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	newAuthority(t, "first").write(dir, "server")
	outsider := newAuthority(t, "outsider")
	outsider.write(other, "client")
	e := startEtcd(t, withTLS(dir))
	s := newStore(t, etcdv3.Options{
		Endpoints: []string{"https://" + e.addr}, CAFile: filepath.Join(other, "ca.crt"),
		CertFile: filepath.Join(other, "client.crt"), KeyFile: filepath.Join(other, "client.key"),
	})
	if _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want an error that names the certificate", err)
	}
}

// The certificate of etcd must be for the host of the endpoint. etcd reads its files for each connection, so that one
// member shows all of them.
func TestTheCertificateOfEtcdMustBeForTheHostOfTheEndpoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, other := newAuthority(t, "authority"), newAuthority(t, "authority") // of the same name
	ca.write(dir, "server")
	ca.write(dir, "client")
	e := startEtcd(t, withTLS(dir))
	_, port, _ := net.SplitHostPort(e.addr)
	newProxyOn(t, "[::1]:"+port, e.addr)
	file := func(name string) string { return filepath.Join(dir, name) }
	connect := func(t *testing.T, host string) *etcdv3.Store {
		return newStore(t, etcdv3.Options{
			Endpoints: []string{"https://" + host + ":" + port}, CAFile: file("ca.crt"), CertFile: file("client.crt"),
			KeyFile: file("client.key"),
		})
	}
	// etcd reads the files once more after it has become ready. If the certificate and the key do not match at that
	// moment, it never serves.
	first := connect(t, "127.0.0.1")
	need.Until(t, "etcd serves", noticed, func() bool { return second(first.List(t.Context())) == nil })
	v4, v6, elsewhere := net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.IPv4(192, 0, 2, 1)
	tests := []struct {
		name   string
		host   string // of the endpoint
		by     *authority
		cert   x509.Certificate
		reason string // empty: it is accepted
	}{
		{"an IPv4 address", "127.0.0.1", ca, x509.Certificate{IPAddresses: []net.IP{v4}}, ""},
		{"an IPv6 address", "[::1]", ca, x509.Certificate{IPAddresses: []net.IP{v6}}, ""},
		{"a name", "localhost", ca, x509.Certificate{DNSNames: []string{"localhost"}}, ""},
		{"one of several", "[::1]", ca,
			x509.Certificate{IPAddresses: []net.IP{elsewhere, v4, v6}, DNSNames: []string{"etcd"}}, ""},
		{"the IPv4 address of another host", "127.0.0.1", ca, x509.Certificate{IPAddresses: []net.IP{elsewhere}},
			"not 127.0.0.1"},
		{"the IPv6 address of another host", "[::1]", ca, x509.Certificate{IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}},
			"not ::1"},
		{"another name", "localhost", ca, x509.Certificate{DNSNames: []string{"etcd.example"}}, "not localhost"},
		{"a name for an address", "127.0.0.1", ca, x509.Certificate{DNSNames: []string{"localhost", "127.0.0.1"}}, "IP SAN"},
		{"an address for a name", "localhost", ca, x509.Certificate{IPAddresses: []net.IP{v4, v6}},
			"not valid for any names"},
		{"nothing", "127.0.0.1", ca, x509.Certificate{}, "IP SAN"},
		{"a time that is over", "127.0.0.1", ca,
			x509.Certificate{IPAddresses: []net.IP{v4}, NotAfter: time.Now().Add(-time.Minute)}, "expired"},
		{"another authority", "127.0.0.1", other, x509.Certificate{IPAddresses: []net.IP{v4}}, "unknown authority"},
		{"a client", "127.0.0.1", ca, x509.Certificate{IPAddresses: []net.IP{v4},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "key usage"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.by.writeFor(dir, "server", tt.cert)
			ca.write(dir, "client") // it has written the authority's certificate, too
			_, err := connect(t, tt.host).List(t.Context())
			switch {
			case tt.reason == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.reason != "" && (err == nil || !strings.Contains(err.Error(), tt.reason)):
				t.Errorf("got %v, want an error with %q", err, tt.reason)
			}
		})
	}
}

func TestEachEndpointIsSpokenToAsItsURLSays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, "authority")
	ca.write(dir, "server")
	ca.write(dir, "client")
	plain, encrypted := startEtcd(t, nil), startEtcd(t, withTLS(dir))
	file := func(name string) string { return filepath.Join(dir, name) }
	dead := need.Address(t).String()
	for _, endpoints := range [][]string{
		{"http://" + plain.addr, "https://" + dead}, {"https://" + dead, "http://" + plain.addr},
		{"http://" + dead, "https://" + encrypted.addr}, {"https://" + encrypted.addr, "http://" + dead}, {encrypted.addr},
	} {
		s := newStore(t, etcdv3.Options{Endpoints: endpoints, CAFile: file("ca.crt"), CertFile: file("client.crt"),
			KeyFile: file("client.key")})
		need.Until(t, "it answers", noticed, func() bool {
			_, err := s.List(t.Context())
			return err == nil
		})
	}
}
