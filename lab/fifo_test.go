package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"flanneld/lab"
)

// A FIFO that nobody writes to blocks whoever opens it for reading. No file that the daemon is told to read may do that
// to it: it says what the file is, and waits or ends as with any other file that it cannot use.
func TestAFIFOInPlaceOfAFileIsNamedAndBlocksNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e, h := c.etcd(vxlanConfig), c.host("host1")
	config := filepath.Join(t.TempDir(), "net-conf.json")
	c.ok(os.WriteFile(config, []byte(vxlanConfig), 0o644))
	secure := strings.Replace(e.URLFor(h), "http:", "https:", 1)
	for _, flags := range [][]string{
		{"-etcd-endpoints", e.URLFor(h), "-net-config-path", "{fifo}"},
		{"-etcd-endpoints", e.URLFor(h), "-network-config", "@{fifo}"},
		{"-etcd-endpoints", secure, "-etcd-cafile", "{fifo}"},
		{"-etcd-endpoints", secure, "-etcd-certfile", "{fifo}", "-etcd-keyfile", "{fifo}"},
		{"-kube-subnet-mgr", "-kubeconfig-file", "{fifo}", "-net-config-path", config},
		{ // the private key
			"-etcd-endpoints", e.URLFor(h), "-etcd-prefix", "/wireguard", "-state-dir", "{folder}/wg",
			"-network-config", `{"Network":"10.6.0.0/16","Backend":{"Type":"wireguard"}}`,
		},
	} {
		dir := t.TempDir()
		fifo := filepath.Join(dir, "fifo")
		if strings.Contains(strings.Join(flags, " "), "{folder}") {
			fifo = filepath.Join(filepath.Dir(h.SubnetFile()), "wgkey")
			c.ok(h.Run("mkdir -p " + filepath.Dir(fifo)))
		}
		c.ok(syscall.Mkfifo(fifo, 0o600))
		for i := range flags {
			flags[i] = strings.NewReplacer("{fifo}", fifo, "{folder}", dir).Replace(flags[i])
		}
		d := must[*lab.Daemon](t)(h.Flanneld(flags...))
		err := lab.Await(c.ctx, func() error {
			log := d.Log()
			if strings.Contains(log, fifo+": is a FIFO, not a regular file") {
				return nil
			}
			select {
			case <-d.Done():
				t.Fatalf("%q: the log does not name the FIFO:\n%s", flags, log)
			default:
			}
			return fmt.Errorf("the log does not name the FIFO:\n%s", log)
		})
		if err != nil {
			t.Errorf("%q: %v", flags, err)
		}
		d.Kill()
	}
}
