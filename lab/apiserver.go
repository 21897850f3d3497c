package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// BuildAPIServer builds the program of APIServer. module is the path of lab/apiserver.
func BuildAPIServer(ctx context.Context, out, module string) error {
	return goBuild(ctx, module, "0", "-o", out, ".")
}

// APIServer is an API server of Kubernetes that has nodes and pods, on a host of the lab. Its objects are in a store
// and outlive it.
type APIServer struct {
	*Host
	*Process // the present one

	program   string
	store     *Etcd
	rights    string
	authority *Authority
	admin     *http.Client
}

// adminGroup may do all.
const adminGroup = "system:masters"

// APIServer starts one. program was built by BuildAPIServer; rights is a manifest with the ClusterRole of all users but
// the administrator.
func (l *Lab) APIServer(ctx context.Context, program string, store *Etcd, rights []byte) (*APIServer, error) {
	h, err := l.Host("apiserver")
	if err != nil {
		return nil, err
	}
	s := &APIServer{Host: h, program: program, store: store, rights: filepath.Join(h.dir, "rights.yaml")}
	if s.authority, err = NewAuthority(h.dir); err != nil {
		return nil, err
	}
	err = errors.Join(s.Grant(rights), s.authority.Issue("server", pkix.Name{CommonName: "apiserver"}, h.Addr),
		s.authority.Issue("admin", pkix.Name{CommonName: "admin", Organization: []string{adminGroup}}))
	if err == nil {
		s.admin, err = s.client("admin")
	}
	if err != nil {
		return nil, err
	}
	return s, s.Start(ctx)
}

// Start starts the server again, and returns when it answers.
func (s *APIServer) Start(ctx context.Context, args ...string) (err error) {
	file := func(name string) string { return filepath.Join(s.dir, name) }
	s.Process, err = s.Host.Start("apiserver", append([]string{s.program, "-listen", s.address(), "-etcd", s.store.URL(),
		"-cert", file("server.crt"), "-key", file("server.key"), "-ca", file("ca.crt"), "-rights", s.rights,
		"-requests", s.requests()}, args...)...)
	if err != nil {
		return err
	}
	return Await(ctx, func() error {
		select {
		case <-s.Done():
			return fmt.Errorf("the API server has ended:\n%s", lastLines(s.Log(), 20))
		default:
		}
		return s.Send(ctx, http.MethodGet, "/readyz", "", nil, nil)
	})
}

func (s *APIServer) address() string { return netip.AddrPortFrom(s.Addr, 6443).String() }

func (s *APIServer) requests() string { return filepath.Join(s.dir, "requests") }

// client returns one with the certificate of a user.
func (s *APIServer) client(user string) (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, user+".crt"), filepath.Join(s.dir, user+".key"))
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", user, err)
	}
	authority, err := os.ReadFile(filepath.Join(s.dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	return &http.Client{Transport: &http.Transport{DialContext: s.Dial, MaxIdleConnsPerHost: 16,
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool}}}, nil
}

// Grant replaces the manifest with the rights.
func (s *APIServer) Grant(manifest []byte) error {
	if err := os.WriteFile(s.rights+".new", manifest, 0o600); err != nil {
		return fmt.Errorf("write rights: %w", err)
	}
	return os.Rename(s.rights+".new", s.rights)
}

// Kubeconfig makes a user, and returns the file with which it reaches the server.
func (s *APIServer) Kubeconfig(user string) (string, error) {
	if err := s.authority.Issue(user, pkix.Name{CommonName: user}); err != nil {
		return "", err
	}
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "lab",
		"clusters": [{"name": "lab", "cluster": {"server": "https://%s", "certificate-authority": "ca.crt"}}],
		"users": [{"name": "user", "user": {"client-certificate": "%[2]s.crt", "client-key": "%[2]s.key"}}],
		"contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "user"}}]}`, s.address(), user)
	path := filepath.Join(s.dir, user+".yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return path, nil
}

// Requests returns what a user has asked for so far, each as verb and URI.
func (s *APIServer) Requests(user string) (out []string, err error) {
	text, err := os.ReadFile(s.requests())
	for line := range strings.Lines(string(text)) {
		if who, what, _ := strings.Cut(strings.TrimSpace(line), " "); who == user {
			out = append(out, what)
		}
	}
	return out, err
}

// Send asks for something as the administrator. kind is the type of the body, which is in as JSON; nil: none. The
// answer goes into out; nil: nowhere.
func (s *APIServer) Send(ctx context.Context, method, path, kind string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+s.address()+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := s.admin.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, text)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	return err
}
