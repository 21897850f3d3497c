package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"flanneld/backend"
	"flanneld/backend/check"
	"flanneld/devicelock"
	"flanneld/ip"
	"flanneld/subnet"
)

// Network is what Open needs to know of a network and its daemon.
type Network struct {
	Env
	Holder  string   // of devices: describes the daemon to others
	Links   []string // devices of the last run
	Waiting func(what string) func(reason error)
	Drop    func(types ...string) // forgets the open files that are kept for all other backends
}

// Several are the backends of a network: one, or more while it moves from one to another, in the order of the network
// configuration. Any goroutine may call its methods.
type Several struct {
	*backend.Applier
	Devices []string // of the backend that the daemon has begun with

	network Network
	create  func(context.Context, Env) (backend.Planner, error) // New
	folder  string                                              // of the locks of devices

	mu     sync.Mutex // guards all below
	config subnet.Config
	made   []made
}

// made is a backend with the setting that it was made of.
type made struct {
	setting subnet.Setting
	planner backend.Planner
	locks   *devicelock.Locks
	names   []string // of its devices
}

// Open makes the backends of a network, and waits until no other daemon has their devices.
func Open(ctx context.Context, n Network) (*Several, error) {
	c, locks := n.Config, devicelock.New(devicelock.Folder, n.Holder)
	devices, err := locks.Wait(ctx, Devices(c), n.Links, n.Waiting("waiting for a device"))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		n.Host.Log.Warn("devices not locked: a second flanneld with the same device would not be noticed", "error", err)
	}
	n.Host.Devices, n.Host.Leftovers.Links = devices, locks.Unused(n.Host.Leftovers.Links, devices)
	n.Drop(types(c.Settings())...) // of an earlier run with another backend
	main, err := Start(ctx, n.Env, n.Waiting("waiting for a command of the network configuration"))
	if err != nil {
		locks.Release()
		return nil, err
	}
	s := &Several{
		Applier: backend.NewApplier(main, n.Host, c.Networks()), Devices: devices, network: n,
		create: New, folder: devicelock.Folder,
		config: c.Of(c.Main()), made: []made{{c.Main(), main, locks, devices}},
	}
	s.network.Former, s.network.Host.Leftovers = nil, ip.Scope{}
	return s, s.Follow(ctx, c)
}

func types(settings []subnet.Setting) (out []string) {
	for _, s := range settings {
		out = append(out, s.Type)
	}
	return out
}

// Close gives back the devices.
func (s *Several) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.made {
		m.locks.Release()
	}
}

// Follow has the applier use the backends of a configuration, those that it has already going on. If the main one
// cannot be made, nothing changes. What is wrong with another one is a problem of the applier; Again tries it again.
func (s *Several) Follow(ctx context.Context, c subnet.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.followLocked(ctx, c)
}

func (s *Several) followLocked(ctx context.Context, c subnet.Config) error {
	main, err := s.makeLocked(ctx, c, c.Main())
	if err != nil {
		return err
	}
	planners, lacks := []backend.Planner{main}, []string(nil)
	for _, setting := range c.Settings()[1:] {
		err := check.Move(c.Of(c.Main()), c.Of(setting))
		var p backend.Planner
		if err == nil {
			p, err = s.makeLocked(ctx, c, setting)
		}
		if err != nil {
			lacks = append(lacks, fmt.Sprintf("additional backend %s failed: %v", setting.Type, err))
			continue
		}
		planners = append(planners, p)
	}
	s.config = c
	s.Lack(lacks...)
	s.Use(planners[0], planners[1:]...)
	return nil
}

// Again tries once more what the last Follow could not make.
func (s *Several) Again(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := func(o subnet.Setting) bool { return s.findLocked(o) == nil }
	if slices.ContainsFunc(s.config.Settings(), missing) {
		_ = s.followLocked(ctx, s.config) // the main one was made
	}
}

// Settle forgets the backends that the configuration does not name, when the kernel is rid of them.
func (s *Several) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	used, left := s.Planners(), []string(nil)
	s.made = slices.DeleteFunc(s.made, func(m made) bool {
		if slices.ContainsFunc(s.config.Settings(), m.setting.Same) || slices.Contains(used, m.planner) {
			left = append(left, m.setting.Type)
			return false
		}
		m.locks.Release()
		return true
	})
	s.network.Drop(left...)
}

func (s *Several) findLocked(o subnet.Setting) backend.Planner {
	for _, m := range s.made {
		if m.setting.Same(o) {
			return m.planner
		}
	}
	return nil
}

// makeLocked returns the backend of a setting.
func (s *Several) makeLocked(ctx context.Context, c subnet.Config, o subnet.Setting) (backend.Planner, error) {
	if p := s.findLocked(o); p != nil {
		return p, nil
	}
	for i, m := range s.made {
		used := slices.ContainsFunc(c.Settings(), m.setting.Same)
		if !used && check.Adjusts(c.Of(m.setting), c.Of(o)) {
			return s.adjustLocked(ctx, &s.made[i], c, o)
		}
	}
	e, locks := s.network.Env, devicelock.New(s.folder, s.network.Holder)
	e.Config = c.Of(o)
	names, err := locks.All(Devices(e.Config), nil)
	if err != nil && len(names) == 0 { // where locks cannot be made, it does without
		return nil, err
	}
	e.Host.Devices = names
	p, err := s.create(ctx, e)
	if err != nil {
		locks.Release()
		return nil, err
	}
	s.made = append(s.made, made{o, p, locks, names})
	return p, nil
}

// adjustLocked has a backend take in other options, or makes the one that takes over its device.
func (s *Several) adjustLocked(ctx context.Context, m *made, c subnet.Config, o subnet.Setting) (backend.Planner,
	error) {
	p, err := m.planner, error(nil)
	if a, ok := p.(backend.Adjuster); ok {
		err = a.Adjust(c.Of(o))
	} else {
		e := s.network.Env
		e.Config, e.Host.Devices = c.Of(o), m.names
		p, err = s.create(ctx, e)
	}
	if err != nil {
		return nil, err
	}
	m.setting, m.planner = o, p
	return p, nil
}
