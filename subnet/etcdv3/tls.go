package etcdv3

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// tlsConfig returns nil if no certificates are given. All files are read again for each connection, so that certificates renewed
// on disk are used without a restart.
func tlsConfig(o Options) (*tls.Config, error) {
	if o.CAFile == "" && o.CertFile == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("etcd client certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	if o.CAFile != "" {
		if _, err := readCA(o.CAFile); err != nil {
			return nil, err
		}
		// The usual verification takes its authorities when the client is made; this is the same one, with those of now.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(state tls.ConnectionState) error { return verify(o.CAFile, state) }
	}
	return c, nil
}

func readCA(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("etcd certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("etcd certificate authority %s: no certificate in PEM form", path)
	}
	return pool, nil
}

func verify(caFile string, state tls.ConnectionState) error {
	roots, err := readCA(caFile)
	if err != nil {
		return err
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("etcd showed no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, DNSName: state.ServerName, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err = state.PeerCertificates[0].Verify(o)
	return err
}
