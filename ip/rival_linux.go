package ip

import (
	"strconv"
	"strings"
)

// isFlannel reports whether a process, as it is named in events, is another daemon of an overlay network: one that
// takes no lock of ours and believes the devices to be its own. What our commands change was asked for.
func isFlannel(by string) bool {
	name, _, _ := strings.Cut(by, " (pid ")
	return strings.Contains(name, "flannel") && name != "flannelctl" && name != "flannel-docker"
}

// runs reports whether a process that was named in an event has not ended.
func runs(by string) bool {
	_, number, _ := strings.Cut(by, " (pid ")
	port, err := strconv.ParseUint(strings.TrimSuffix(number, ")"), 10, 32)
	return err == nil && processName(uint32(port)) == by
}
