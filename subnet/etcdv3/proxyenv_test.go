package etcdv3_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"flanneld/need"
	"flanneld/subnet/etcdv3"
)

// TestAProxyOfTheEnvironmentIsUsed runs itself with HTTPS_PROXY: Go reads the environment once.
func TestAProxyOfTheEnvironmentIsUsed(t *testing.T) {
	const endpointOf = "ETCD_BEHIND_PROXY" // a name that only the proxy knows: nobody asks one for loopback
	if endpoint := os.Getenv(endpointOf); endpoint != "" {
		s := newStore(t, etcdv3.Options{Endpoints: []string{endpoint}})
		need.Until(t, "the store answers", noticed, func() bool {
			_, _, err := s.Config(t.Context())
			return err == nil
		})
		return
	}
	t.Parallel()
	e := startEtcd(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var asked atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go connectTo(c, e.addr, &asked)
		}
	}()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), endpointOf+"=http://192.0.2.1:2379", "HTTPS_PROXY=http://"+l.Addr().String(),
		"NO_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil || asked.Load() == 0 {
		t.Errorf("%v, the proxy was asked %d times:\n%s", err, asked.Load(), out)
	}
}

// connectTo answers one CONNECT to 192.0.2.1 with a connection to an address.
func connectTo(c net.Conn, address string, asked *atomic.Int64) {
	defer c.Close()
	in := bufio.NewReader(c)
	r, err := http.ReadRequest(in)
	if err != nil || r.Method != http.MethodConnect || !strings.HasPrefix(r.Host, "192.0.2.1:") {
		return
	}
	asked.Add(1)
	out, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer out.Close()
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() { _, _ = io.Copy(out, in) }()
	_, _ = io.Copy(c, out)
}
