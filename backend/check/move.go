package check

import (
	"encoding/json"
	"errors"
	"fmt"

	vxlan "flanneld/backend/vxlan/options"
	"flanneld/subnet"
)

// Move says why a host cannot have both backends of a network that moves from one to the other; nil: it can.
func Move(from, to subnet.Config) error {
	for _, c := range []subnet.Config{from, to} {
		if err := Config(c); err != nil {
			return err
		}
		switch c.BackendType {
		case "extension":
			return errors.New("backend extension: flanneld does not know what its commands set up, so a network cannot move " +
				"to or from it")
		case "alloc":
			return errors.New("backend alloc carries no packets: a network cannot move to or from it")
		}
	}
	switch {
	case from.Main().Same(to.Main()):
		return fmt.Errorf("backend %s with these options: the network has it already", to.BackendType)
	case from.BackendType != to.BackendType:
		return nil
	case to.BackendType != vxlan.Type:
		return fmt.Errorf("backend %s: the old and the new options need the same network device: move to another "+
			"backend first, then back to this one with the new options", to.BackendType)
	}
	a, err := vxlan.Parse(from.Backend)
	if err != nil {
		return err
	}
	b, err := vxlan.Parse(to.Backend)
	switch {
	case err != nil:
		return err
	case a.VNI&0xffff == b.VNI&0xffff:
		return fmt.Errorf("backend vxlan: the old and the new options need the same network device: give the new "+
			"ones another VNI, such as %d", (a.VNI+1)&0xffff|1)
	case a.Port == b.Port && a.GBP != b.GBP:
		return fmt.Errorf("backend vxlan: the kernel does not share port %d between devices with and without GBP: give the "+
			"new options another port", a.Port)
	}
	return nil
}

// Moves says what is wrong with the backends of a configuration beside the main one.
func Moves(c subnet.Config) error {
	for _, s := range c.Settings()[1:] {
		if err := Move(c.Of(c.Main()), c.Of(s)); err != nil {
			return err
		}
	}
	return nil
}

// Is reports whether one of the ways to a host is the backend of a setting, as far as records tell.
func Is(way subnet.Offer, s subnet.Setting) bool {
	if way.Type != s.Type {
		return false
	}
	o, err := vxlan.Parse(s.Object)
	if s.Type != vxlan.Type || err != nil {
		return s.Type != vxlan.Type
	}
	var data struct{ VNI uint32 }
	return json.Unmarshal([]byte(way.Data), &data) == nil && data.VNI == o.VNI
}
