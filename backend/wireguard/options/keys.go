package options

import (
	"os"
	"path/filepath"
	"strings"

	"flanneld/subnet"
)

// KeyFiles are the paths of the files that hold the private key, in base64. The first one that has a key counts; all
// others get the same, so that whoever runs on this host next, also the released flannel, goes on with it.
type KeyFiles []string

// FindKeyFiles returns the file that $WIREGUARD_KEY_FILE names, else wgkey beside the subnet file, where the released
// flannel has it, and a copy in the state folder, which outlives a reboot.
func FindKeyFiles(stateDir, subnetFile string) KeyFiles {
	if path := os.Getenv("WIREGUARD_KEY_FILE"); path != "" {
		return KeyFiles{path}
	}
	state := strings.TrimSuffix(subnet.StateFiles(stateDir, subnetFile)[0], ".json")
	return KeyFiles{filepath.Join(filepath.Dir(subnetFile), "wgkey"), state + ".wgkey"}
}
