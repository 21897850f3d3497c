package join

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3/authority"
)

// Service lets hosts into the store, on a port of its own: etcd has only its root add users.
//
//	host                                       member
//	 │── TLS, the authority pinned by the token ──▶│
//	 │── secret, request for a certificate ───────▶│ token valid? ── makes a user, issues the certificate
//	 │◀── certificate, authority, members ─────────│
type Service struct {
	Admin  *Admin
	Folder authority.Folder
	Prefix string
	// Members returns how a host that has reached this address of the service reaches the members of the store.
	Members func(ctx context.Context, reached netip.Addr) (endpoints, services []string, err error)
	// Changed is called after the set of hosts has changed.
	Changed func(context.Context)
	Log     *slog.Logger

	// Now is the clock; nil: time.Now.
	Now func() time.Time

	adding sync.Mutex // one member after the other
}

// Whoever reaches the port must exhaust neither the daemon nor the store.
const (
	requestsPerSecond = 20
	requestsBurst     = 100
	refusedLogs       = 10 * time.Second // between two lines about refused requests, after a few
	refusedBurst      = 5
)

// Run serves on a listener, which is closed at the end, until ctx ends; it returns nil then.
func (s *Service) Run(ctx context.Context, l net.Listener) error {
	ca, err := s.Folder.CACertificate()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	srv := &http.Server{
		Handler: s.handler(), ReadTimeout: requestTime, WriteTimeout: 2 * requestTime, IdleTimeout: requestTime,
		MaxHeaderBytes: maxBody, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err = srv.Serve(tls.NewListener(l, serverTLS(s.Folder, ca)))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Service) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Service) handler() http.Handler {
	requests, lines := rate.NewLimiter(requestsPerSecond, requestsBurst), rate.NewLimiter(rate.Every(refusedLogs),
		refusedBurst)
	mux := http.NewServeMux()
	serve := func(path string, f func(*http.Request, request) (answer, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if !requests.Allow() {
				reply(w, http.StatusTooManyRequests, answer{Error: "too many requests, try again"})
				return
			}
			var in request
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			if err == nil {
				err = json.Unmarshal(body, &in)
			}
			if err != nil {
				reply(w, http.StatusBadRequest, answer{Error: "not a request to join"})
				return
			}
			out, err := f(r, in)
			if err == nil {
				reply(w, http.StatusOK, out)
				return
			}
			if lines.Allow() {
				s.Log.Warn("host refused by the store", "address", r.RemoteAddr, "reason", err)
			}
			reply(w, http.StatusForbidden, answer{Problem: problemOf(err), Error: err.Error()})
		})
	}
	serve(pathJoin, s.join)
	serve(pathRenew, s.renew)
	serve(pathMember, s.member)
	return mux
}

func problemOf(err error) string {
	for word, is := range problems {
		if errors.Is(err, is) {
			return word
		}
	}
	return ""
}

// join lets a host in that has the secret of a valid token.
func (s *Service) join(r *http.Request, in request) (answer, error) {
	t := Token{ID: in.ID}
	if !validID(in.ID) || len(in.Secret) != len(t.secret) {
		return answer{}, ErrUnknown
	}
	copy(t.secret[:], in.Secret)
	grant, err := s.Admin.Admits(r.Context(), t, s.now())
	if err == nil && in.Member && !grant.Member {
		err = ErrNotMember
	}
	if err != nil {
		return answer{}, err
	}
	h := Host{
		User: NewUser(), Name: subnet.HostName(in.Host), Identity: identity(in.Identity), Token: t.ID,
		Address: addrOf(r.RemoteAddr).String(), Joined: s.now().UTC().Truncate(time.Second), Member: in.Member,
	}
	out, err := s.issue(r, in, h.User)
	if err == nil && in.Member {
		out.Key, err = s.Folder.AuthorityKey()
	}
	if err != nil {
		return answer{}, err
	}
	if err := s.Admin.AddHost(r.Context(), h); err != nil {
		return answer{}, err
	}
	s.Log.Info("host joined the store", "host", h.Name, "address", h.Address, "user", h.User, "token", h.Token,
		"member", h.Member)
	s.Changed(r.Context())
	return out, nil
}

// renew issues a new certificate to a host that shows the one that it has, unless it was shut out.
func (s *Service) renew(r *http.Request, in request) (answer, error) {
	h, err := s.shown(r)
	if err != nil {
		return answer{}, err
	}
	return s.issue(r, in, h.User)
}

// member adds the member of a host, which has joined as one, to the others.
func (s *Service) member(r *http.Request, in request) (answer, error) {
	h, err := s.shown(r)
	switch u, e := url.Parse(in.Peer); {
	case err != nil:
		return answer{}, err
	case !h.Member:
		return answer{}, ErrNotMember
	case e != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(in.Peer, ",= "):
		return answer{}, errors.New("peer URL of the member is invalid")
	case in.Prefix != s.Prefix:
		return answer{}, ErrPrefix
	}
	s.adding.Lock()
	defer s.adding.Unlock()
	cluster, err := s.Admin.AddPeer(r.Context(), h.User, in.Peer)
	if err == nil {
		s.Log.Info("member added to the store", "host", h.Name, "user", h.User, "address", in.Peer)
	}
	return answer{User: h.User, Cluster: cluster}, err
}

// shown returns the host whose certificate was shown, unless it was shut out.
func (s *Service) shown(r *http.Request) (Host, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Host{}, errors.New("no certificate of this store was shown")
	}
	user := r.TLS.PeerCertificates[0].Subject.CommonName
	if !strings.HasPrefix(user, userForm) {
		return Host{}, errors.New("the certificate is not that of a host")
	}
	h, found, err := s.Admin.Host(r.Context(), user)
	if err == nil && !found {
		err = ErrRemoved
	}
	return h, err
}

// issue makes the answer for a user.
func (s *Service) issue(r *http.Request, in request, user string) (answer, error) {
	if in.Prefix != s.Prefix {
		return answer{}, fmt.Errorf("%w (it is for %q)", ErrPrefix, s.Prefix)
	}
	key, err := authority.Requested(in.Request)
	if err != nil {
		return answer{}, err
	}
	ca, err := authority.Open(s.Folder, s.now())
	if err != nil {
		return answer{}, err
	}
	cert, err := ca.Issue(key, authority.Subject{Name: user}, s.now())
	if err != nil {
		return answer{}, err
	}
	out := answer{User: user, CA: authority.PEM(ca.Certificate()), Certificate: authority.PEM(cert)}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	out.Endpoints, out.Services, err = s.Members(r.Context(), addrOf(local.String()))
	return out, err
}

func addrOf(hostPort string) netip.Addr {
	a, _ := netip.ParseAddrPort(hostPort) // the zero address says as much
	return a.Addr().Unmap()
}

// identity drops what is none.
func identity(s string) string {
	if len(s) > maxName {
		return ""
	}
	return s
}

func reply(w http.ResponseWriter, code int, a answer) {
	text, err := json.Marshal(a)
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(text) // nothing to do for a host that has gone
}
