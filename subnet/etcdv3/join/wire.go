package join

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"flanneld/subnet/etcdv3/authority"
)

// The paths of the service. Fields of the answers are only ever added.
const (
	pathJoin  = "/v1/join"  // POST request: a host with a token
	pathRenew = "/v1/renew" // POST request: a host with a certificate
	// POST request: a member with a certificate and without data, which is added as a learner
	pathMember = "/v1/member"
)

const (
	maxBody     = 64 << 10 // bytes
	maxName     = 253      // bytes of a host's name
	requestTime = 10 * time.Second
)

// request is what a host sends.
type request struct {
	ID      string `json:"id,omitempty"`     // of the token
	Secret  []byte `json:"secret,omitempty"` // of the token
	Request []byte `json:"request"`          // for a certificate, in PEM form
	Prefix  string `json:"prefix"`           // of the network
	Host    string `json:"host,omitempty"`
	// Identity is the one in the host's record.
	Identity string `json:"identity,omitempty"`
	// Member says that the host is to be a member, and gets the key of the authority.
	Member bool `json:"member,omitempty"`
	// Peer is the URL at which the other members reach a member.
	Peer string `json:"peer,omitempty"`
}

// answer is what it gets.
type answer struct {
	User        string   `json:"user,omitempty"`
	CA          []byte   `json:"ca,omitempty"` // PEM
	Certificate []byte   `json:"certificate,omitempty"`
	Endpoints   []string `json:"endpoints,omitempty"` // URLs of the members
	Services    []string `json:"services,omitempty"`  // HOST:PORT of the members' services of this kind
	Key         []byte   `json:"key,omitempty"`       // of the authority, in PEM form; for members
	Cluster     string   `json:"cluster,omitempty"`   // what etcd calls the initial cluster; for members
	Problem     string   `json:"problem,omitempty"`   // one of the words below, or empty: it may pass by itself
	Error       string   `json:"error,omitempty"`
}

// The problems that do not pass by themselves.
const (
	problemUnknown = "unknown token"
	problemExpired = "expired token"
	problemRevoked = "revoked token"
	problemPrefix  = "other network"
	problemRemoved = "host removed"
	problemMember  = "not for members"
	problemFull    = "too many members"
	problemAddress = "other member"
)

// problems are the errors of what does not pass by itself.
var problems = map[string]error{
	problemUnknown: ErrUnknown, problemExpired: ErrExpired, problemRevoked: ErrRevoked, problemRemoved: ErrRemoved,
	problemPrefix: ErrPrefix, problemMember: ErrNotMember, problemFull: ErrFull, problemAddress: ErrAddress,
}

var (
	// ErrRemoved says that the host was shut out.
	ErrRemoved = errors.New("this host was removed from the store: to have it join again, start it with a new token")
	// ErrPrefix says that the store is for another network.
	ErrPrefix = errors.New("the store is for another network: give all hosts the same -etcd-prefix")
	// ErrAuthority says that whoever answers has another authority than the token.
	ErrAuthority = errors.New("the certificate authority is another one than that of the token: the token is for " +
		"another store, or another program answers at this address; nothing was sent there")
)

// pinned is the configuration of a connection to a member of the store whose authority the token names. Only members
// have certificates of servers.
func pinned(t Token, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The name in the certificate does not matter, the authority does, and VerifyConnection verifies it.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			roots := x509.NewCertPool()
			found := false
			for _, c := range s.PeerCertificates[min(1, len(s.PeerCertificates)):] {
				if c.IsCA && authority.Hash(c) == t.CA {
					roots.AddCert(c)
					found = true
				}
			}
			if !found {
				return ErrAuthority
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: roots, CurrentTime: now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			})
			if e := (x509.CertificateInvalidError{}); errors.As(err, &e) && e.Reason == x509.Expired {
				return fmt.Errorf("%w (the clock of this host says %s)", err, now().Format(time.RFC3339))
			}
			return err
		},
	}
}

// clientTLS is the configuration of a client with the credentials of a name in the folder, which are read again for
// each connection.
func clientTLS(f authority.Folder, name string) (*tls.Config, error) {
	ca, err := f.CACertificate()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair(f, name) },
	}, nil
}

// serverTLS is the configuration of the service: hosts may show the certificate that they were given.
func serverTLS(f authority.Folder, ca *x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			p, err := pair(f, authority.Member)
			if err != nil {
				return nil, err
			}
			p.Certificate = append(p.Certificate, ca.Raw) // for hosts that know its hash only
			return p, nil
		},
	}
}

func pair(f authority.Folder, name string) (*tls.Certificate, error) {
	p, err := tls.LoadX509KeyPair(f.CertFile(name), f.KeyFile(name))
	return &p, err
}
