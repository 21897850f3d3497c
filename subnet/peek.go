package subnet

import (
	"path/filepath"
	"strings"
)

// statePath returns where the state of a subnet file lies, without an ending.
func statePath(dir, subnetFile string) string {
	return filepath.Join(dir, strings.ReplaceAll(strings.Trim(filepath.Clean(subnetFile), "/"), "/", "-"))
}

// PeekState reads the state of a daemon, running or not, without a lock. Without one the state is empty.
func PeekState(dir, subnetFile string) (State, error) {
	return (&StateDir{path: statePath(dir, subnetFile)}).load()
}

// StateFiles returns the files that OpenState, Save and SavePeers write.
func StateFiles(dir, subnetFile string) []string {
	path := statePath(dir, subnetFile)
	return []string{path + ".json", path + ".peers", path + ".lock"}
}
