package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
)

// ownerKey is the field of a saved configuration that the delegate does not get to see.
const ownerKey = "flanneld.attachment"

// Key names an attachment: one interface of one container.
type Key struct {
	ContainerID, IfName string
}

// owner says which attachment a saved configuration belongs to. Files of a flannel that ran here before have none.
type owner struct {
	IfName  string `json:"ifName"`
	Netns   string `json:"netns"`
	NetnsID string `json:"netnsID"`
	// Refused is what the delegate said when it could neither attach the container nor detach it again.
	Refused string `json:"refused,omitempty"`
}

// record is a saved configuration.
type record struct {
	owner
	config object // as the delegate gets it
}

func parseRecord(text []byte) (record, error) {
	var r record
	if err := json.Unmarshal(text, &r.config); err != nil {
		return record{}, fmt.Errorf("saved configuration: %w", err)
	}
	if r.config.text("type") == "" || r.config.text("name") == "" {
		return record{}, errors.New("saved configuration: no name or no type")
	}
	if err := r.config.decode(ownerKey, &r.owner); err != nil {
		return record{}, fmt.Errorf("saved configuration: %w", err)
	}
	delete(r.config, ownerKey)
	return r, nil
}

func (r record) marshal() ([]byte, error) {
	all := maps.Clone(r.config)
	all.set(ownerKey, r.owner)
	return json.Marshal(all)
}

// netns returns the path of the attachment's namespace if that one is still there. A path below /proc is that of a
// process, and may be another one's by now.
func (r record) netns() string {
	if r.NetnsID == "" || strings.HasPrefix(r.Netns, "/proc/") || netnsID(r.Netns) != r.NetnsID {
		return ""
	}
	return r.Netns
}

// subnets returns the ranges that the container's addresses are from.
func (r record) subnets() []netip.Prefix {
	var ipam struct {
		addressRange                  // one range, as old flannels wrote it
		Ranges       [][]addressRange `json:"ranges"`
	}
	if r.config.decode("ipam", &ipam) != nil {
		return nil
	}
	var out []netip.Prefix
	if ipam.Subnet.IsValid() {
		out = append(out, ipam.Subnet)
	}
	for _, set := range ipam.Ranges {
		for _, r := range set {
			out = append(out, r.Subnet)
		}
	}
	return out
}
