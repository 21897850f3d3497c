package authority_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"flanneld/subnet/etcdv3/authority"
)

var now = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, f authority.Folder) *authority.Authority {
	t.Helper()
	a, err := authority.Open(f, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func serial(t *testing.T, f authority.Folder, name string) string {
	t.Helper()
	cert, err := f.Certificate(name)
	if err != nil {
		t.Fatal(err)
	}
	return cert.SerialNumber.String()
}

func TestAnAuthorityIsMadeOnce(t *testing.T) {
	f := authority.Folder(t.TempDir() + "/store")
	if f.HasAuthority() {
		t.Error("an empty folder has an authority")
	}
	first := open(t, f)
	if again := open(t, f); !again.Certificate().Equal(first.Certificate()) || !f.HasAuthority() {
		t.Error("the authority is another one at the second call")
	}
	// After a crash between the two files.
	if err := os.Remove(f.CAFile()); err != nil {
		t.Fatal(err)
	}
	if again := open(t, f); authority.Hash(again.Certificate()) != authority.Hash(first.Certificate()) {
		t.Error("the authority has another key")
	}
	if err := f.Write("ca.pem", authority.PEM(open(t, authority.Folder(t.TempDir())).Certificate())); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Open(f, now); err == nil || !strings.Contains(err.Error(), "is not the key of") {
		t.Errorf("with the certificate of another authority: %v", err)
	}
}

func TestCertificatesAreRenewedInTimeAndWhenTheirSubjectChanges(t *testing.T) {
	f := authority.Folder(t.TempDir())
	a := open(t, f)
	s := authority.Subject{Name: "member", Server: true, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	moved := s
	moved.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	for _, step := range []struct {
		name    string
		subject authority.Subject
		at      time.Duration
		renewed bool
	}{
		{"at first", s, 0, true},
		{"again", s, 0, false},
		{"after half of its life", s, authority.Lifetime / 2, false},
		{"in its last third", s, authority.Lifetime * 3 / 4, true},
		{"after that", s, authority.Lifetime, false},
		{"with another address", moved, authority.Lifetime, true},
	} {
		before := ""
		if f.Has("member") {
			before = serial(t, f, "member")
		}
		if err := a.Ensure(f, "member", step.subject, now.Add(step.at)); err != nil {
			t.Fatal(err)
		}
		if got := serial(t, f, "member") != before; got != step.renewed {
			t.Errorf("%s: renewed is %v", step.name, got)
		}
	}
}

func TestACertificateIsForWhatItWasIssued(t *testing.T) {
	a := open(t, authority.Folder(t.TempDir()))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate())
	for _, server := range []bool{false, true} {
		cert, err := a.Issue(&key.PublicKey, authority.Subject{Name: "x", Server: server}, now)
		if err != nil {
			t.Fatal(err)
		}
		for usage, want := range map[x509.ExtKeyUsage]bool{
			x509.ExtKeyUsageClientAuth: true, x509.ExtKeyUsageServerAuth: server,
		} {
			_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
			if (err == nil) != want {
				t.Errorf("server %v, usage %v: %v", server, usage, err)
			}
		}
		if cert.IsCA {
			t.Error("who was given a certificate can issue others")
		}
	}
}

func TestOnlyTheKeyOfARequestCounts(t *testing.T) {
	key, err := authority.Folder(t.TempDir()).Key("host")
	if err != nil {
		t.Fatal(err)
	}
	text, err := authority.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := authority.Requested(text)
	if err != nil || !key.PublicKey.Equal(got) {
		t.Errorf("another key: %v", err)
	}
	broken := strings.Replace(string(text), "A", "B", 3)
	for name, bad := range map[string]string{"nothing": "", "junk": "junk", "a broken one": broken} {
		if _, err := authority.Requested([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
