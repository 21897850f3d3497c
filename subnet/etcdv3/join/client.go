package join

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3/authority"
)

// Client gets and renews the credentials of this host.
type Client struct {
	Folder   authority.Folder
	Prefix   string
	Host     string // its name
	Identity string
	Member   bool // the host is to be a member, and keeps the key of the authority

	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Joined is what is known of the store that a host has joined; it stands in a file beside the credentials.
type Joined struct {
	User      string   `json:"user"`
	Prefix    string   `json:"prefix"`
	Endpoints []string `json:"endpoints"` // of the members
	Services  []string `json:"services"`  // HOST:PORT, where members take requests to join and renew
	Token     string   `json:"token"`     // the ID of the one that this host has joined with
	// Several says, on a member, that there are others: without data it is added to them, and makes no store of its own.
	Several bool `json:"several,omitempty"`
}

// joinedFile holds what the host knows of the store.
const joinedFile = "store.json"

// Load returns what is known of the store that this host has joined; false: it has joined none.
func Load(f authority.Folder) (j Joined, ok bool) {
	text, err := f.Read(joinedFile)
	if err != nil || json.Unmarshal(text, &j) != nil || len(j.Endpoints) == 0 {
		return Joined{}, false
	}
	return j, f.Has(authority.Host)
}

// HasJoined reports whether this host has joined a store whose authority has the hash.
func HasJoined(f authority.Folder, ca [sha256.Size]byte) bool {
	_, ok := Load(f)
	own, err := f.CACertificate()
	if !ok || err != nil || authority.Hash(own) != ca {
		return false
	}
	cert, err := f.Certificate(authority.Host)
	return err == nil && cert.CheckSignatureFrom(own) == nil
}

// Save writes what is known of the store.
func Save(f authority.Folder, j Joined) error {
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return f.Write(joinedFile, append(text, '\n'))
}

func (c Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// Join has this host let in with a token by the first of the services that answers, and keeps what it is given in the
// folder. It asks each once; the error joins what they said.
func (c Client) Join(ctx context.Context, t Token, services []string) (Joined, error) {
	in := request{
		ID: t.ID, Secret: t.secret[:], Prefix: c.Prefix, Host: c.Host, Identity: c.Identity, Member: c.Member,
	}
	return c.first(ctx, services, func(ctx context.Context, service string) (Joined, error) {
		j, err := c.ask(ctx, asked{service, pathJoin, pinned(t, c.now), t.CA}, in)
		j.Token, j.Several = t.ID, c.Member
		return j, err
	})
}

// Renew has the certificate of this host renewed, and learns the present members.
func (c Client) Renew(ctx context.Context, have Joined) (Joined, error) {
	ca, err := c.Folder.CACertificate()
	if err != nil {
		return Joined{}, err
	}
	config, err := clientTLS(c.Folder, authority.Host)
	if err != nil {
		return Joined{}, err
	}
	return c.first(ctx, have.Services, func(ctx context.Context, service string) (Joined, error) {
		j, err := c.ask(ctx, asked{service, pathRenew, config, authority.Hash(ca)}, request{Prefix: c.Prefix})
		j.Token = have.Token
		return j, err
	})
}

// AddMember has the member of this host, which other members reach at the URL, added to them, and returns what etcd
// calls the initial cluster. It asks each service once.
func (c Client) AddMember(ctx context.Context, services []string, peer string) (cluster string, err error) {
	ca, err := c.Folder.CACertificate()
	if err != nil {
		return "", err
	}
	config, err := clientTLS(c.Folder, authority.Host)
	if err != nil {
		return "", err
	}
	err = errors.New("no other member of the store is known")
	for _, service := range services {
		var out answer
		out, err = asked{service, pathMember, config, authority.Hash(ca)}.post(ctx, request{Prefix: c.Prefix, Peer: peer})
		if err == nil && out.Cluster != "" {
			return out.Cluster, nil
		}
		err = fmt.Errorf("%s: %w", service, err)
		if problemOf(err) != "" {
			break
		}
	}
	return "", err
}

// first tries the services one after the other. What one of them refuses for good the others refuse as well.
func (c Client) first(ctx context.Context, services []string,
	try func(context.Context, string) (Joined, error)) (Joined, error) {
	var errs []error
	for _, service := range services {
		j, err := try(ctx, service)
		if err == nil {
			return j, Save(c.Folder, j)
		}
		errs = append(errs, fmt.Errorf("%s: %w", service, err))
		if problemOf(err) != "" {
			break
		}
	}
	return Joined{}, errors.Join(errs...)
}

// asked is whom a request is for.
type asked struct {
	service, path string
	config        *tls.Config
	trusts        [sha256.Size]byte // the hash of the authority
}

// ask sends a request, and keeps the certificate that it gets.
func (c Client) ask(ctx context.Context, to asked, in request) (Joined, error) {
	key, err := c.Folder.Key(authority.Host)
	if err != nil {
		return Joined{}, err
	}
	if in.Request, err = authority.Request(key); err != nil {
		return Joined{}, err
	}
	out, err := to.post(ctx, in)
	if err != nil {
		return Joined{}, err
	}
	cert, err := authority.ParseCertificate(out.Certificate)
	if err == nil && !key.PublicKey.Equal(cert.PublicKey) || len(out.Endpoints) == 0 {
		err = errors.New("the answer makes no sense")
	}
	if err == nil {
		err = to.issuer(out.CA, cert)
	}
	if err == nil && in.Member {
		err = authority.SaveAuthority(c.Folder, out.CA, out.Key)
	}
	if err == nil {
		err = authority.SaveHost(c.Folder, out.CA, out.Certificate)
	}
	return Joined{User: out.User, Prefix: c.Prefix, Endpoints: out.Endpoints, Services: out.Services}, err
}

// issuer returns an error if the certificate is not one of the authority that this host trusts.
func (to asked) issuer(text []byte, cert *x509.Certificate) error {
	ca, err := authority.ParseCertificate(text)
	if err == nil && authority.Hash(ca) != to.trusts {
		err = ErrAuthority
	}
	if err == nil {
		err = cert.CheckSignatureFrom(ca)
	}
	return err
}

// post sends a request and reads the answer.
func (to asked) post(ctx context.Context, in request) (answer, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+to.service+to.path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	client := http.Client{
		Transport:     &http.Transport{TLSClientConfig: to.config, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(r)
	if err != nil {
		return answer{}, errors.Unwrap(err) // without the URL, which the caller names
	}
	defer resp.Body.Close()
	var out answer
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return answer{}, err
	}
	if json.Unmarshal(text, &out) != nil {
		return answer{}, errors.New("whoever answers there is no member of a store")
	}
	if resp.StatusCode == http.StatusOK {
		return out, nil
	}
	if err, ok := problems[out.Problem]; ok {
		return answer{}, err
	}
	return answer{}, fmt.Errorf("refused: %s", subnet.Brief(out.Error, maxName))
}
