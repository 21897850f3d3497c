package serve

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Connections to the health port at once. Whoever can reach the port must not take the descriptors that the daemon
// needs for the store and the kernel.
const (
	healthConns     = 128
	healthConnsEach = 16 // of one address
	healthShare     = 8  // the part of all descriptors that is the most
)

// Bounded accepts at most so many connections at once, and of one address at most so many. A new connection ends the
// oldest one, of its address or of all, so that those who hold connections open keep nobody out.
func Bounded(l net.Listener, most, each int) net.Listener {
	return &bounded{Listener: l, most: most, each: each}
}

type bounded struct {
	net.Listener
	most, each int

	mu   sync.Mutex // guards all below
	open []*boundedConn
}

type boundedConn struct {
	net.Conn
	from netip.Addr
	in   *bounded
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &boundedConn{Conn: conn, in: b}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.from = a.AddrPort().Addr().Unmap()
	}
	if old := b.admit(c); old != nil {
		_ = old.Close()
	}
	return c, nil
}

// admit takes in a connection, and returns the one that must end for it; nil: none.
func (b *bounded) admit(c *boundedConn) (old *boundedConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	same := 0
	for _, o := range b.open {
		if o.from == c.from {
			same++
		}
	}
	if same >= b.each {
		old = b.open[slices.IndexFunc(b.open, func(o *boundedConn) bool { return o.from == c.from })]
	} else if len(b.open) >= b.most {
		old = b.open[0]
	}
	b.open = append(b.open, c)
	return old
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.in.mu.Lock()
	c.in.open = slices.DeleteFunc(c.in.open, func(o *boundedConn) bool { return o == c })
	c.in.mu.Unlock()
	return c.Conn.Close()
}

// mostHealthConns returns how many connections the descriptors of the process allow.
func mostHealthConns() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return healthConnsEach
	}
	return int(max(1, min(healthConns, limit.Cur/healthShare)))
}

// knows reports whether a request asks for this host. A web page of somebody else can have its own name lead to this
// host (DNS rebinding) and would read the answers; its requests carry that name.
func (h Health) knows(r *http.Request) bool {
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil || name == "" || name == "localhost" {
		return true // browsers always send a name or an address
	}
	if own, err := os.Hostname(); err == nil {
		own = strings.ToLower(own)
		if short, _, _ := strings.Cut(own, "."); name == own || name == short {
			return true
		}
	}
	return slices.ContainsFunc(h.Hosts, func(pattern string) bool { return covers(strings.ToLower(pattern), name) })
}

// covers reports whether a pattern of -healthz-hosts stands for a name: "*" for all, "*.example.com" for all below.
func covers(pattern, name string) bool {
	if end, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(name, end)
	}
	return pattern == name
}

// guarded serves a page to requests that ask for this host only.
func (h Health) guarded(page http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.knows(r) {
			text := fmt.Sprintf("host name %.100q is not known: use an address of this host, or add the name to -healthz-hosts",
				r.Host)
			http.Error(w, text, http.StatusMisdirectedRequest)
			return
		}
		page.ServeHTTP(w, r)
	}
}
