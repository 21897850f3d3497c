package lab_test

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"flanneld/hack/blocks"
	"flanneld/lab"
)

// TestCommandsOfTheDocumentsRun runs the commands of all places that are no booted machines, as they stand: those of
// one document and one place one after the other on the same host.
//
// Slow: the commands of all documents run one after the other.
func TestCommandsOfTheDocumentsRun(t *testing.T) {
	t.Parallel()
	must[bool](t)(etcdPrograms())
	for _, p := range []struct {
		place   blocks.Place
		furnish func(c *cluster) *system
		atLeast int
	}{
		{blocks.First, func(c *cluster) *system { return c.system("first", "192.0.2.1") }, 4},
		{blocks.Other, func(c *cluster) *system { c.store().configure(); return c.system("other", "192.0.2.2") }, 1},
		{blocks.TLS, (*cluster).tlsSystem, 1},
		{blocks.Member, (*cluster).memberSystem, 5},
		{blocks.Joins, (*cluster).joiningSystem, 2},
		{blocks.Etcd, func(c *cluster) *system { return c.store() }, 8},
		{blocks.Host, (*cluster).networkSystem, 25},
	} {
		t.Run(string(p.place), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
			defer cancel()
			c.ctx = ctx
			s := p.furnish(c)
			commands := must[[]blocks.Command](t)(blocks.At("..", p.place))
			for _, b := range commands {
				if err := s.runs(b); err != nil {
					t.Errorf("%s:\n%s%v", b.File, b.Text, err)
				}
			}
			if len(commands) < p.atLeast {
				t.Errorf("%d commands, want those of all documents", len(commands))
			}
		})
	}
}

// Slow: the documents build the programs and run the demo.
func TestCommandsOfTheSourceTreeRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	ran := map[string]bool{} // some lines stand in several documents
	for _, b := range must[[]blocks.Command](t)(blocks.At("..", blocks.Source)) {
		for line := range strings.Lines(b.Run) {
			if ran[line] {
				continue
			}
			ran[line] = true
			cmd := exec.CommandContext(ctx, "sh", "-euc", line)
			cmd.Dir, cmd.Env = "..", append(os.Environ(), searchPath())
			start := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", b.File, line, err, out)
			}
			t.Logf("%5.1f s  %s", time.Since(start).Seconds(), strings.TrimSpace(line))
		}
	}
	if len(ran) < 15 {
		t.Errorf("%d commands, want those of all documents", len(ran))
	}
}

// etcdPrograms builds etcd's command line beside our programs.
func etcdPrograms() (bool, error) {
	cmd := exec.Command("go", "build", "-o", filepath.Dir(binaries.Etcd)+"/", "go.etcd.io/etcd/etcdctl/v3",
		"go.etcd.io/etcd/etcdutl/v3")
	cmd.Dir, cmd.Env = "etcdctl", append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build etcdctl: %w\n%s", err, out)
	}
	return err == nil, err
}

// searchPath has our programs, those of etcd, and the docker script.
func searchPath() string {
	scripts, _ := filepath.Abs("../dist/docker") // of a working directory that is there
	return "PATH=" + filepath.Dir(binaries.Etcd) + ":" + scripts + ":" + os.Getenv("PATH")
}

// system is a host whose /etc, /run, /root and /var/lib are its own, so that commands run as they stand in the
// documents.
type system struct {
	*lab.Host
	c      *cluster
	keeper *lab.Process // has the mount namespace
	pod    netip.Addr
}

// ownFolders puts layers over folders of the machine that runs the tests, in a namespace of their own.
const ownFolders = `mount -t tmpfs tmpfs "$1"
for d in etc run root var/lib; do
	mkdir -p "$1/$d/upper" "$1/$d/work"
	mount -t overlay overlay -o "lowerdir=/$d,upperdir=$1/$d/upper,workdir=$1/$d/work" "/$d"
done
until rm -rf /run/flannel /var/lib/flannel /etc/flannel; do :; done # daemons of other labs write there
mkdir -p /etc/flannel
: >"$1/ready"
exec sleep infinity`

func (c *cluster) system(name, addr string) *system {
	c.t.Helper()
	h := must[*lab.Host](c.t)(c.HostOf(name, 0))
	c.ok(h.Run("ip addr add "+addr+"/24 dev eth0", "ip route add default via 192.0.2.254"))
	dir := filepath.Join(h.Dir(), "layers")
	c.ok(os.Mkdir(dir, 0o755))
	s := &system{Host: h, c: c, keeper: must[*lab.Process](c.t)(h.Start("system", "unshare", "--mount", "sh", "-euc",
		ownFolders, "sh", dir))}
	c.await(func() error {
		select {
		case <-s.keeper.Done():
			c.t.Fatalf("%s has ended: %s", name, s.keeper.Log())
		default:
		}
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root%s/ready", s.keeper.Pid(), dir))
		return err
	})
	return s
}

// args runs a script in the system.
func (s *system) args(script string) []string {
	return []string{"nsenter", "--target", fmt.Sprint(s.keeper.Pid()), "--mount", "env", searchPath(), "HOME=/root",
		"POD=" + s.pod.String(), "sh", "-euc", "cd /root\n" + script}
}

func (s *system) sh(script string) (string, error) { return s.Exec(s.c.ctx, s.args(script)...) }

// must runs what prepares the system.
func (s *system) must(script string) string {
	s.c.t.Helper()
	return must[string](s.c.t)(s.sh(script))
}

// background starts a script that does not end by itself.
func (s *system) background(name, script string) *lab.Process {
	s.c.t.Helper()
	return must[*lab.Process](s.c.t)(s.Start(name, s.args(script)...))
}

// runs runs a command. One that ends with a daemon must become ready, and is ended and cleaned up.
func (s *system) runs(b blocks.Command) error {
	daemon := regexp.MustCompile(`(?m)^flanneld( .*\\\n.*| .*|)\n?\z`)
	if !daemon.MatchString(b.Run) {
		out, err := s.sh(b.Run)
		if err != nil {
			err = fmt.Errorf("%s%w", out, err)
		}
		return err
	}
	p := s.background("block", daemon.ReplaceAllString(b.Run, "exec ${0}"))
	ready := lab.Await(s.c.ctx, func() error {
		select {
		case <-p.Done():
			return nil
		default:
		}
		_, err := s.sh("flannelctl status")
		return err
	})
	err := errors.Join(ready, p.Signal(syscall.SIGTERM))
	if code, waited := p.Wait(s.c.ctx); code != 0 {
		err = errors.Join(err, fmt.Errorf("ends with %d", code), waited)
	}
	if err == nil {
		_, err = s.sh("flannelctl cleanup --store-data")
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, p.Log())
	}
	return err
}

// etcd starts one in the system, with more arguments, and waits for an answer.
func (s *system) etcd(listen, args, clientArgs string) {
	s.c.t.Helper()
	s.background("etcd", fmt.Sprintf("exec etcd --data-dir /root/etcd --unsafe-no-fsync --log-level warn "+
		"--listen-client-urls %s --advertise-client-urls %s %s", listen, listen, args))
	s.c.await(func() error {
		_, err := s.sh("etcdctl " + clientArgs + " endpoint health")
		return err
	})
}

// store is 192.0.2.1 with an etcd.
func (c *cluster) store() *system {
	c.t.Helper()
	s := c.system("store", "192.0.2.1")
	s.etcd("http://192.0.2.1:2379,http://127.0.0.1:2379", "", "")
	s.must("echo secret >/etc/flannel/password")
	return s
}

const documentedConfig = `'{"Network": "10.5.0.0/16", "SubnetMax": "10.5.199.0", "Backend": {"Type": "vxlan"}}'`

func (s *system) configure() { s.must("etcdctl put /coreos.com/network/config " + documentedConfig) }

// memberSystem is 192.0.2.1 with a secured embedded store.
func (c *cluster) memberSystem() *system {
	c.t.Helper()
	s := c.system("member", "192.0.2.1")
	s.background("flanneld", "exec flanneld -etcd-embedded -etcd-embedded-listen 192.0.2.1:2379 -network-config "+
		documentedConfig)
	c.await(func() error {
		_, err := s.sh("flannelctl hosts list && ls /var/lib/flannel/snapshots/*.db")
		return err
	})
	return s
}

// joiningSystem is 192.0.2.2, which has a token of such a store.
func (c *cluster) joiningSystem() *system {
	c.t.Helper()
	token, _, _ := strings.Cut(c.memberSystem().must("flannelctl token create --member | cut -d ' ' -f 6"), "@")
	s := c.system("other", "192.0.2.2")
	s.must("umask 077; echo " + token + " >/root/token")
	return s
}

func (c *cluster) tlsSystem() *system {
	c.t.Helper()
	dir := c.t.TempDir()
	a := must[*lab.Authority](c.t)(lab.NewAuthority(dir))
	c.ok(a.Issue("server", pkix.Name{CommonName: "server"}, netip.MustParseAddr("192.0.2.1")))
	c.ok(a.Issue("client", pkix.Name{CommonName: "client"}))
	client := fmt.Sprintf("--endpoints https://192.0.2.1:2379 --cacert %[1]s/ca.crt --cert %[1]s/client.crt --key "+
		"%[1]s/client.key", dir)
	store := c.system("store", "192.0.2.1")
	store.etcd("https://192.0.2.1:2379",
		fmt.Sprintf("--cert-file %[1]s/server.crt --key-file %[1]s/server.key --trusted-ca-file %[1]s/ca.crt "+
			"--client-cert-auth", dir), client)
	store.must("etcdctl " + client + " put /coreos.com/network/config " + documentedConfig)
	s := c.system("other", "192.0.2.2")
	s.must(fmt.Sprintf("cp %[1]s/ca.crt /etc/flannel/ca.pem; cp %[1]s/client.crt /etc/flannel/client.pem; cp "+
		"%[1]s/client.key /etc/flannel/client-key.pem", dir))
	return s
}

// networkSystem is one of two hosts of a network, each with a bridge for pods. A third host has a lease only.
func (c *cluster) networkSystem() *system {
	c.t.Helper()
	store := c.store()
	store.configure()
	store.must(`etcdctl put --lease="$(etcdctl lease grant 3600 | cut -d " " -f 2)" /coreos.com/network/subnets/10.5.34.0-24 ` +
		`'{"PublicIP":"192.0.2.34","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:34"}}'`)
	var hosts []*system
	for i := 2; i <= 3; i++ {
		s := c.system(fmt.Sprint("host", i), fmt.Sprint("192.0.2.", i))
		s.background("flanneld", "exec flanneld -etcd-endpoints http://192.0.2.1:2379 -ip-masq -probe-interval 1s")
		hosts = append(hosts, s)
	}
	for _, s := range hosts {
		c.await(func() error {
			_, err := s.sh("flannelctl status")
			return err
		})
		subnet := netip.MustParsePrefix(s.must(`. /run/flannel/subnet.env; ip link add cni0 type bridge; ip addr add "$FLANNEL_SUBNET" dev cni0
			ip link set cni0 mtu "$FLANNEL_MTU" up; printf %s "$FLANNEL_SUBNET"`))
		s.pod = subnet.Addr().Next()
	}
	c.await(func() error { // until the hosts have reached each other: a probe of the first second may have been lost
		_, err := hosts[0].sh(`flannelctl doctor && flannelctl status && flannelctl peers -o json | grep -q '"round_trip_ns": [1-9]'`)
		return err
	})
	return hosts[0]
}
