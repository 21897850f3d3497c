package ip

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addrGenNone keeps the kernel from making an IPv6 link-local address (IN6_ADDR_GEN_MODE_NONE).
const addrGenNone = 1

// applyLink makes one device be as wanted, or be gone.
func (k *LinuxKernel) applyLink(want Link, del bool) error {
	have, err := k.linkByName(want.Name)
	if errors.Is(err, unix.ENODEV) {
		if del {
			return nil
		}
		return k.createLink(want)
	}
	if err != nil {
		return err
	}
	if del {
		// In this order: who looks after the programs sees that the device is gone, and does not attach them again.
		if err = k.handle.LinkDel(have.device()); errors.Is(err, unix.ENODEV) {
			err = nil
		}
		return errors.Join(err, DetachPrograms(want.Name))
	}
	return k.changeLink(have, want)
}

func (k *LinuxKernel) createLink(want Link) error {
	device, err := k.newDevice(want)
	if err != nil {
		return err
	}
	if err := k.handle.LinkAdd(device); err != nil {
		return fmt.Errorf("create device: %w", explain(Op{Object: want}, err))
	}
	have, err := k.linkByName(want.Name)
	if err != nil {
		return err
	}
	return errors.Join(k.noLinkLocal(have), k.changeLink(have, want))
}

// newDevice says to the library what to create.
func (k *LinuxKernel) newDevice(want Link) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = want.Name, want.MTU
	t := linkTypeOf(want.Type)
	if t.create == nil {
		return nil, fmt.Errorf("create device %s: a device of type %s is made by its datapath: %w",
			want.Name, want.Type, unix.ENODEV)
	}
	return t.create(k, want, attrs)
}

// noLinkLocal keeps the kernel from giving a device an address of its own making. It refuses that while it creates the
// device, and without IPv6 there is nothing to do.
func (k *LinuxKernel) noLinkLocal(l link) error {
	err := k.handle.LinkSetIP6AddrGenMode(l.device(), addrGenNone)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("turn off link-local addresses: %w", err)
	}
	return nil
}

// changeLink changes what differs, each by a request of its own so that an error says what was refused.
func (k *LinuxKernel) changeLink(have link, want Link) error {
	device := have.device()
	var errs []error
	did := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("set %s: %w", what, err))
		}
	}
	if change := linkTypeOf(want.Type).change; change != nil {
		if err := change(k, have, want, did); err != nil {
			return err
		}
	}
	if have.MTU != want.MTU {
		did(fmt.Sprintf("MTU %d", want.MTU), k.handle.LinkSetMTU(device, want.MTU))
	}
	if have.AcceptRA != want.AcceptRA {
		did("accept_ra", setAcceptRA(want))
	}
	switch {
	case want.Up && !have.Up:
		did("up", k.handle.LinkSetUp(device))
	case !want.Up && have.Up:
		did("down", k.handle.LinkSetDown(device))
	}
	return errors.Join(errs...)
}

func setAcceptRA(want Link) error {
	value := "0"
	if want.AcceptRA {
		value = "1"
	}
	return writeSysctl(linkSetting(want.Name, "accept_ra"), value)
}
