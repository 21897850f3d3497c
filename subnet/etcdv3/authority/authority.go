package authority

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	caLifetime = 20 * 365 * 24 * time.Hour
	// Lifetime is that of all other certificates. They are renewed when a third of it is left.
	Lifetime = 365 * 24 * time.Hour
	// backdated is how far the clock of a host may be behind that of the one that issued its certificate.
	backdated = 24 * time.Hour
)

// Authority issues certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Open returns the authority of a folder, and makes it if there is none. The certificate is written last: without it
// the authority is made anew, with the same key.
func Open(f Folder, now time.Time) (*Authority, error) {
	key, err := f.Key(caName)
	if err != nil {
		return nil, err
	}
	if exists(f.CAFile()) {
		cert, err := f.CACertificate()
		if err != nil {
			return nil, err
		}
		if !key.PublicKey.Equal(cert.PublicKey) {
			return nil, fmt.Errorf("%s is not the key of %s", f.KeyFile(caName), f.CAFile())
		}
		return &Authority{cert, key}, nil
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: "flannel store"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotAfter: now.Add(caLifetime),
	}
	cert, err := sign(t, t, &key.PublicKey, key, now)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, f.Write(caName+certEnd, PEM(cert))
}

// Certificate returns that of the authority.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Hash identifies an authority by its public key.
func Hash(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// Subject is whom a certificate is for.
type Subject struct {
	Name      string // the user of etcd, for a client
	Server    bool   // else a client only
	Addresses []netip.Addr
	Names     []string
}

// Issue returns a certificate for the key of a subject.
func (a *Authority) Issue(public *ecdsa.PublicKey, s Subject, now time.Time) (*x509.Certificate, error) {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: s.Name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, DNSNames: s.Names,
		NotAfter: now.Add(Lifetime),
	}
	if s.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, addr := range s.Addresses {
		t.IPAddresses = append(t.IPAddresses, addr.AsSlice())
	}
	return sign(t, a.cert, public, a.key, now)
}

func sign(t, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey,
	now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	t.SerialNumber, t.NotBefore = serial, now.Add(-backdated)
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// Ensure has the folder hold a key and a current certificate for the subject. It changes nothing that is current, and
// keeps the key, so that whoever reads the two files while they are renewed gets a pair.
func (a *Authority) Ensure(f Folder, name string, s Subject, now time.Time) error {
	key, err := f.Key(name)
	if err != nil {
		return err
	}
	if cert, err := f.Certificate(name); err == nil && a.current(cert, key, s) && !Due(cert, now) {
		return nil
	}
	cert, err := a.Issue(&key.PublicKey, s, now)
	if err != nil {
		return err
	}
	return f.Write(name+certEnd, PEM(cert))
}

// Due reports whether a certificate is to be renewed.
func Due(cert *x509.Certificate, now time.Time) bool {
	return now.After(cert.NotAfter.Add(-Lifetime / 3))
}

func (a *Authority) current(cert *x509.Certificate, key *ecdsa.PrivateKey, s Subject) bool {
	same := func(ip net.IP, addr netip.Addr) bool { return ip.Equal(addr.AsSlice()) }
	return cert.CheckSignatureFrom(a.cert) == nil && key.PublicKey.Equal(cert.PublicKey) &&
		cert.Subject.CommonName == s.Name && slices.Equal(cert.DNSNames, s.Names) &&
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) == s.Server &&
		slices.EqualFunc(cert.IPAddresses, s.Addresses, same)
}

const requestType = "CERTIFICATE REQUEST"

// Request returns a request for a certificate of the key, in PEM form.
func Request(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: requestType, Bytes: der}), nil
}

// Requested returns the key that a request is for. Whoever asks has no say in anything else of the certificate.
func Requested(text []byte) (*ecdsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != requestType {
		return nil, errors.New("no certificate request in PEM form")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve.Params().BitSize != 256 {
		return nil, errors.New("certificate request: want an ECDSA key on P-256")
	}
	return key, nil
}

// SaveHost writes the credentials that this host was given. The certificate of the host comes last: it says that all is
// there.
func SaveHost(f Folder, ca, cert []byte) error {
	if err := f.Write(caName+certEnd, ca); err != nil {
		return err
	}
	return f.Write(Host+certEnd, cert)
}

// SaveAuthority writes the key of the authority that this host was given as a member.
func SaveAuthority(f Folder, ca, key []byte) error {
	cert, err := ParseCertificate(ca)
	if err != nil {
		return err
	}
	k, err := parseKey(key)
	if err != nil {
		return fmt.Errorf("key of the authority: %w", err)
	}
	if !k.PublicKey.Equal(cert.PublicKey) {
		return errors.New("the key is not that of the authority")
	}
	return f.Write(caName+keyEnd, key)
}
