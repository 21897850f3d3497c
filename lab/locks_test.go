package lab_test

import (
	"os"
	"path/filepath"
	"testing"

	"flanneld/devicelock"
	"flanneld/lab"
)

// Daemons leave the files by which they lock devices, in a folder of the machine. A lab takes those of its hosts away.
func TestALabLeavesNoLocksOfDevices(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	n := network{"vxlan", lab.Dual}
	h := c.host("host1")
	c.flanneld(h, c.etcd(n.config()))
	files := devicelock.Files(devicelock.Folder, filepath.Join("/run/netns", h.Name()))
	if len(files) == 0 {
		t.Fatal("the daemon has locked no device")
	}
	c.Close()
	for _, file := range files {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", file, err)
		}
	}
}
