package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"flanneld/api"
)

// lose kills the daemon of the first host, and with it its etcd, while pods ping each other. The network takes another
// host without it. Then it is started again.
func (d *demo) lose(ctx context.Context) error {
	if err := d.voters(ctx, d.hosts[0], demoMembers); err != nil {
		return err
	}
	for _, h := range d.hosts[:demoMembers] {
		if err := h.KnowsMembers(ctx, demoMembers); err != nil {
			return err
		}
	}
	d.printf("\nLoss of a member: the daemon of host1 and its etcd are killed while pods ping each other\n")
	var pings []*Pings
	for _, pair := range [][2]*Pod{{d.pods[0], d.pods[1]}, {d.pods[1], d.pods[2]}} {
		p, err := pair[0].Pings(pair[1].Addr(), PingOptions{})
		if err != nil {
			return err
		}
		pings = append(pings, p)
	}
	d.daemons[0].Kill()
	took, err := d.take(ctx)
	if err != nil {
		return err
	}
	if err := d.voters(ctx, d.hosts[1], demoMembers-1); err != nil {
		return err
	}
	if err := d.printMembers(ctx, d.hosts[1]); err != nil {
		return err
	}
	last := d.pods[len(d.pods)-1]
	rtt, err := last.Ping(ctx, d.pods[1].Addr(), PingOptions{})
	if err != nil {
		return err
	}
	d.printf("  host%d has joined meanwhile, ready after %s. Ping from %s to %s: %s\n", len(d.hosts),
		took.Round(time.Millisecond), last.Addr(), d.pods[1].Addr(), rtt.Round(time.Microsecond))
	start := time.Now()
	if err := d.startDaemon(0); err != nil {
		return err
	}
	if err := d.daemons[0].Ready(ctx); err != nil {
		return err
	}
	d.printf("  host1 is started again, ready after %s.\n", time.Since(start).Round(time.Millisecond))
	sent, lost := 0, 0
	for _, p := range pings {
		s := p.Stop()
		sent, lost = sent+s.Sent, lost+s.Lost()
	}
	d.printf("  Pings between pods of host1, host2 and host3: %d sent, %d lost.\n", sent, lost)
	if lost > 0 {
		return fmt.Errorf("%d of %d pings were lost with a member of the store", lost, sent)
	}
	return nil
}

// take has another host join by the second one, and returns how long it took to be ready.
func (d *demo) take(ctx context.Context) (time.Duration, error) {
	token, err := d.token(ctx, d.hosts[1])
	if err != nil {
		return 0, err
	}
	if err := d.addHost(); err != nil {
		return 0, err
	}
	i := len(d.hosts) - 1
	start := time.Now()
	if err := d.startDaemon(i, "-join", token); err != nil {
		return 0, err
	}
	if err := d.daemons[i].Ready(ctx); err != nil {
		return 0, err
	}
	took := time.Since(start)
	pod, err := d.hosts[i].Pod()
	d.pods = append(d.pods, pod)
	return took, err
}

// voters waits until a member says that so many of them are healthy and vote.
func (d *demo) voters(ctx context.Context, at *Host, want int) error {
	return Await(ctx, func() error {
		out, err := at.Exec(ctx, d.flannelctl(at, "members", "list", "--json")...)
		if err != nil {
			return fmt.Errorf("flannelctl members list: %w: %s", err, out)
		}
		var members []api.Member
		if err := json.Unmarshal([]byte(out), &members); err != nil {
			return err
		}
		return WantVoters(members, want)
	})
}

func (d *demo) printMembers(ctx context.Context, at *Host) error {
	out, err := at.Exec(ctx, d.flannelctl(at, "members", "list")...)
	if err != nil {
		return fmt.Errorf("flannelctl members list: %w: %s", err, out)
	}
	d.printf("  # flannelctl members list\n")
	for line := range strings.Lines(out) {
		d.printf("  %s", line)
	}
	return nil
}
