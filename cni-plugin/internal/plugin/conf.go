package plugin

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/flannel"
	defaultDelegate   = "bridge"
	defaultIPAM       = "host-local"
)

// object is a JSON object whose fields belong to somebody else: they are passed on as they are.
type object map[string]json.RawMessage

// set gives a field a value that is known to marshal.
func (o object) set(key string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("marshal %s: %v", key, err))
	}
	o[key] = text
}

// setDefault is set for a field that is not there.
func (o object) setDefault(key string, value any) {
	if _, ok := o[key]; !ok {
		o.set(key, value)
	}
}

// decode reads a field into a value; one that is not there leaves it as it is.
func (o object) decode(key string, value any) error {
	text, ok := o[key]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// text returns a field that is a string, or "".
func (o object) text(key string) string {
	var s string
	if o.decode(key, &s) != nil {
		return ""
	}
	return s
}

// isTrue reports whether a field is there and true.
func (o object) isTrue(key string) bool {
	var b bool
	return o.decode(key, &b) == nil && b
}

// Conf is the configuration of a network as the runtime hands it to each call.
type Conf struct {
	CNIVersion       string               `json:"cniVersion"`
	Name             string               `json:"name"`
	Type             string               `json:"type"`
	SubnetFile       string               `json:"subnetFile"`
	DataDir          string               `json:"dataDir"` // of the saved configurations
	Delegate         object               `json:"delegate"`
	IPAM             object               `json:"ipam"`
	RuntimeConfig    object               `json:"runtimeConfig"`
	PrevResult       json.RawMessage      `json:"prevResult"`
	ValidAttachments []types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// ParseConf reads a configuration, fills in the defaults and refuses what cannot be meant.
func ParseConf(text []byte) (Conf, error) {
	c := Conf{SubnetFile: defaultSubnetFile, DataDir: defaultDataDir}
	if err := json.Unmarshal(text, &c); err != nil {
		return Conf{}, types.NewError(types.ErrDecodingFailure, "network configuration: "+err.Error(), "")
	}
	if err := c.validate(); err != nil {
		return Conf{}, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("network configuration %q: %v", c.Name, err),
			"")
	}
	return c, nil
}

func (c *Conf) validate() error {
	var errs []error
	if c.SubnetFile == "" {
		c.SubnetFile = defaultSubnetFile
	}
	if c.DataDir == "" {
		c.DataDir = defaultDataDir
	}
	for _, key := range []string{"name", "ipam"} {
		if _, ok := c.Delegate[key]; ok {
			errs = append(errs, fmt.Errorf("the delegate must not have a field %q: it is the network's, and belongs beside "+
				"\"delegate\"", key))
		}
	}
	if _, ok := c.Delegate["type"]; ok && c.Delegate.text("type") == "" {
		errs = append(errs, errors.New(`delegate.type must be a string, the name of a plugin such as "bridge"`))
	}
	if c.Type != "" && c.Delegate.text("type") == c.Type {
		errs = append(errs, fmt.Errorf("delegate.type %q is the plugin itself: it would call itself endlessly", c.Type))
	}
	if _, err := c.routes(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// routes returns the routes that the configuration asks for, each as it is written there.
func (c *Conf) routes() ([]json.RawMessage, error) {
	text, ok := c.IPAM["routes"]
	if !ok {
		return nil, nil
	}
	var typed []types.Route
	var raw []json.RawMessage
	if err := errors.Join(json.Unmarshal(text, &typed), json.Unmarshal(text, &raw)); err != nil {
		return nil, fmt.Errorf("ipam.routes must be a list of objects with a \"dst\": %w", err)
	}
	return raw, nil
}
