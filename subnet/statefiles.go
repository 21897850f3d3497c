package subnet

import (
	"path/filepath"
	"strings"
)

// statePath returns where the state of a subnet file lies, without an ending.
func statePath(dir, subnetFile string) string {
	return filepath.Join(dir, strings.ReplaceAll(strings.Trim(filepath.Clean(subnetFile), "/"), "/", "-"))
}

// ReadState reads the state of a daemon, running or not, without a lock. Without one the state is empty.
func ReadState(dir, subnetFile string) (State, error) {
	return (&StateDir{path: statePath(dir, subnetFile)}).load()
}

// ReadOtherStates reads the states of other networks that are kept in the same directory, of daemons that run or do
// not. One that cannot be read is left out.
func ReadOtherStates(dir, subnetFile string) []State {
	files, _ := filepath.Glob(filepath.Join(dir, "*.json")) // the pattern is valid
	var out []State
	for _, file := range files {
		path := strings.TrimSuffix(file, ".json")
		if path == statePath(dir, subnetFile) {
			continue
		}
		if st, err := (&StateDir{path: path}).load(); err == nil {
			out = append(out, st)
		}
	}
	return out
}

// StateFiles returns the files that OpenState, Save and SaveMemory write.
func StateFiles(dir, subnetFile string) []string {
	path := statePath(dir, subnetFile)
	return []string{path + ".json", path + ".peers", path + ".lock"}
}
