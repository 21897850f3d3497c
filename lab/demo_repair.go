package lab

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// repair deletes the tunnel device of the first host and waits until the device and its routes are back.
func (d *demo) repair(ctx context.Context) error {
	h := d.hosts[0]
	before, err := tunnelRoutes(h)
	if err != nil {
		return err
	}
	d.printf("\nRepair: the tunnel device of host1 is deleted\n  # ip link del flannel.1\n")
	start := time.Now()
	if err := h.Run("ip link del flannel.1"); err != nil {
		return err
	}
	err = Await(ctx, func() error {
		now, err := tunnelRoutes(h)
		if err == nil && now != before {
			err = fmt.Errorf("routes of host1 are\n%swant\n%s", now, before)
		}
		return err
	})
	if err != nil {
		return err
	}
	took := time.Since(start)
	rtt, err := d.pods[0].Ping(ctx, d.pods[1].Addr(), PingOptions{})
	if err != nil {
		return err
	}
	d.printf("  Device and routes are back after %s. Ping from %s to %s: %s\n", took.Round(time.Millisecond),
		d.pods[0].Addr(),
		d.pods[1].Addr(), rtt.Round(time.Microsecond))
	return nil
}

// tunnelRoutes returns the routes over the tunnel device.
func tunnelRoutes(h *Host) (string, error) {
	return h.Output("ip route show dev flannel.1")
}

// printStatus shows what flannelctl says of the first host once it is ready again and its peers have answered.
func (d *demo) printStatus(ctx context.Context) error {
	var out string
	err := Await(ctx, func() (err error) {
		out, err = d.hosts[0].Exec(ctx, d.flannelctl(d.hosts[0], "status")...)
		if err == nil && !strings.Contains(out, "all answer") {
			err = fmt.Errorf("flannelctl status shows peers that have not answered:\n%s", out)
		}
		return err
	})
	if err != nil {
		return err
	}
	d.printf("\nStatus of host1\n  # flannelctl status\n")
	out, _, _ = strings.Cut(out, "\nwarnings ") // of the start and of the repair: long lines
	for line := range strings.Lines(out + "\n") {
		d.printf("  %s", line)
	}
	return nil
}

// flannelctl returns the command line that asks the daemon of a host.
func (d *demo) flannelctl(h *Host, args ...string) []string {
	return append([]string{d.Flannelctl, "--subnet-file", h.SubnetFile(), "--state-dir", h.StateDir()}, args...)
}

func (d *demo) printCommands() {
	first := d.hosts[0]
	host := "ip netns exec " + first.Name() + " "
	d.printf("\nThe network stays up until Ctrl-C. Try next, in another terminal, as root:\n\n")
	for _, c := range []struct{ what, command string }{
		{"state of host1", host + strings.Join(d.flannelctl(first, "status"), " ")},
		{"find faults", host + strings.Join(d.flannelctl(first, "doctor"), " ")},
		{"members of the store", host + strings.Join(d.flannelctl(first, "members", "list"), " ")},
		{"status page as JSON", fmt.Sprintf("%scurl -s http://127.0.0.1:%d/status", host, healthPort)},
		{"ping from pod to pod", "ip netns exec " + d.pods[0].Name() + " ping " + d.pods[1].Addr().String()},
		{"tunnel device", host + "ip -d link show flannel.1"},
		{"forwarding entries", host + "bridge fdb show dev flannel.1"},
		{"delete the routes and see them repaired", host + "ip route flush dev flannel.1"},
		{"subnet file for the container runtime", "cat " + first.SubnetFile()},
		{"log of host1", "tail -f " + first.Dir() + "/flanneld.log"},
	} {
		d.printf("# %s\n%s\n", c.what, c.command)
	}
}
