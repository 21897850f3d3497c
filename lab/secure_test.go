package lab_test

import (
	"crypto/x509/pkix"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/lab"
)

// certify writes a new authority, and certificates of it for a store and for its clients, into a folder.
func (c *cluster) certify(dir string, e *lab.Etcd) {
	c.t.Helper()
	authority := must[*lab.Authority](c.t)(lab.NewAuthority(dir))
	for _, name := range []string{"server", "client"} {
		c.ok(authority.Issue(name, pkix.Name{CommonName: name}, e.Addr))
	}
}

// demandLogin has a store ask for users, and makes one that may read and write the network.
func (c *cluster) demandLogin(e *lab.Etcd, user, password string) {
	c.t.Helper()
	client := must[*clientv3.Client](c.t)(e.Client())
	defer client.Close()
	all := clientv3.PermissionType(clientv3.PermReadWrite)
	for _, step := range []func() (any, error){
		func() (any, error) { return client.RoleAdd(c.ctx, "root") },
		func() (any, error) { return client.UserAdd(c.ctx, "root", password) },
		func() (any, error) { return client.UserGrantRole(c.ctx, "root", "root") },
		func() (any, error) { return client.RoleAdd(c.ctx, user) },
		func() (any, error) {
			return client.RoleGrantPermission(c.ctx, user, lab.Prefix+"/", clientv3.GetPrefixRangeEnd(lab.Prefix+"/"), all)
		},
		func() (any, error) { return client.UserAdd(c.ctx, user, password) },
		func() (any, error) { return client.UserGrantRole(c.ctx, user, user) },
		func() (any, error) { return client.AuthEnable(c.ctx) },
	} {
		_, err := step()
		c.ok(err)
	}
}

func TestAStoreWithTLSAndUsersIsFollowedThroughNewCertificatesAndForgottenTokens(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := must[*lab.Etcd](t)(c.IdleEtcd("etcd"))
	dir := t.TempDir()
	c.certify(dir, e)
	c.ok(e.StartTLS(c.ctx, dir))
	c.ok(e.Put(c.ctx, "config", vxlanConfig))
	c.demandLogin(e, "flannel", "open sesame")
	hosts := c.hosts(3)
	file := func(name string) string { return filepath.Join(dir, name) }
	args := []string{
		"-etcd-endpoints", e.TLSURL(), "-etcd-cafile", file("ca.crt"), "-etcd-certfile", file("client.crt"), "-etcd-keyfile",
		file("client.key"),
		"-etcd-username", "flannel", "-etcd-password",
	}
	outsider := must[*lab.Daemon](t)(hosts[2].Flanneld(append(args, "wrong")...))
	c.await(c.logs(outsider, "authentication failed"))
	outsider.Kill()
	var daemons []*lab.Daemon
	for _, h := range hosts[:2] {
		daemons = append(daemons, must[*lab.Daemon](t)(h.Flanneld(append(args, "open sesame")...)))
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	pods := c.pods(hosts[:2]...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	pings := c.pinged(pods[0], pods[1])
	e.Kill() // which forgets the tokens
	c.certify(dir, e)
	for _, d := range daemons {
		c.await(c.logs(d, "store unreachable"))
	}
	c.ok(e.StartTLS(c.ctx, dir))
	for i, d := range daemons {
		c.within(noticed, c.logs(d, "store reachable again"))
		if n := strings.Count(d.Log(), `msg="store unreachable`); n != 1 {
			t.Errorf("host %d named it %d times:\n%s", i, n, d.Log())
		}
	}
	c.await(func() error {
		if s := daemons[0].Status(); strings.Contains(s, "unreachable") || strings.Contains(s, "not confirmed") {
			return fmt.Errorf("status %q", s)
		}
		return nil
	})
	c.nothingLost("a store with new certificates and without tokens", pings)
}
