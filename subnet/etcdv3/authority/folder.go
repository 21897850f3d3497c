package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"flanneld/subnet"
)

// Folder holds the keys and certificates of one host. Its mode is 0700, that of the files in it 0600.
type Folder string

// maxFile bounds each file, in bytes.
const maxFile = 1 << 20

// The names of pairs of a key and a certificate.
const (
	caName = "ca"
	Member = "member" // of a member of the store: for clients, other members, and hosts that join
	Root   = "root"   // of a member, to administer the store
	Host   = "host"   // of the daemon of this host
)

const (
	certEnd  = ".pem"
	keyEnd   = ".key"
	keyType  = "PRIVATE KEY"
	certType = "CERTIFICATE"
)

// CAFile returns the file with the certificate of the authority.
func (f Folder) CAFile() string { return f.CertFile(caName) }

// CertFile returns the file with the certificate of a name.
func (f Folder) CertFile(name string) string { return filepath.Join(string(f), name+certEnd) }

// KeyFile returns the file with the key of a name.
func (f Folder) KeyFile(name string) string { return filepath.Join(string(f), name+keyEnd) }

// HasAuthority reports whether the key of the authority is here, as on members of the store.
func (f Folder) HasAuthority() bool { return exists(f.CAFile()) && exists(f.KeyFile(caName)) }

// AuthorityKey returns the key of the authority, in PEM form.
func (f Folder) AuthorityKey() ([]byte, error) { return f.Read(caName + keyEnd) }

// Has reports whether the certificate of a name is here, and that of the authority.
func (f Folder) Has(name string) bool {
	return exists(f.CAFile()) && exists(f.CertFile(name)) && exists(f.KeyFile(name))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Read returns the text of a file.
func (f Folder) Read(name string) ([]byte, error) {
	return subnet.ReadFile(filepath.Join(string(f), name), maxFile)
}

// Write replaces a file whole or not at all.
func (f Folder) Write(name string, text []byte) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	return subnet.WriteFile(filepath.Join(string(f), name), 0o600, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// Certificate returns the certificate of a name.
func (f Folder) Certificate(name string) (*x509.Certificate, error) {
	text, err := f.Read(name + certEnd)
	if err != nil {
		return nil, err
	}
	cert, err := ParseCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.CertFile(name), err)
	}
	return cert, nil
}

// CACertificate returns the certificate of the authority.
func (f Folder) CACertificate() (*x509.Certificate, error) { return f.Certificate(caName) }

// Key returns the key of a name, and makes it if there is none.
func (f Folder) Key(name string) (*ecdsa.PrivateKey, error) {
	text, err := f.Read(name + keyEnd)
	if errors.Is(err, fs.ErrNotExist) {
		return f.newKey(name)
	}
	if err != nil {
		return nil, err
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.KeyFile(name), err)
	}
	return key, nil
}

func (f Folder) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, f.Write(name+keyEnd, pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}))
}

// parseKey never quotes the text in its errors.
func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyType {
		return nil, errors.New("no key in PEM form")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("no key in PKCS #8 form")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return key, nil
}

// ParseCertificate reads one certificate in PEM form.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != certType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("want one certificate in PEM form")
	}
	return x509.ParseCertificate(block.Bytes)
}

// PEM returns the text of a certificate.
func PEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: cert.Raw})
}
