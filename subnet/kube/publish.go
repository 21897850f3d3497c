package kube

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/time/rate"

	"flanneld/trigger"
)

// The pace of writing: whoever keeps changing our annotations costs the API server six requests a minute, not more.
const (
	writeEvery = 10 * time.Second
	writeBurst = 5
)

// publishAll writes what the own node lacks, whenever that may have changed, until ctx ends.
func (s *Source) publishAll(ctx context.Context) {
	limit := rate.NewLimiter(rate.Every(writeEvery), writeBurst)
	backoff := newBackoff()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.publish:
		}
		p, what := s.missing()
		if what == nil {
			backoff = newBackoff()
			continue
		}
		if limit.Wait(ctx) != nil {
			return
		}
		got, err := s.client.patchNode(ctx, s.o.Node, p)
		if ctx.Err() != nil {
			return
		}
		s.wrote(err)
		if err != nil {
			_ = trigger.Pause(ctx, backoff.Step())
			s.publish.Set()
			continue
		}
		backoff = newBackoff()
		s.log.Info("node object updated", "node", s.o.Node, "what", what)
		s.put(s.o.Names.nodeOf(got))
	}
}

// missing returns what has to be written; what is nil if nothing has.
func (s *Source) missing() (p patch, what []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == nil || s.status.Waiting != "" {
		return patch{}, nil
	}
	s.setSelfLocked(prefixesOf(s.self))
	p.Metadata.UID = s.own.uid
	p.Metadata.Annotations = differing(s.own.annotations, s.o.Names.wanted(s.self))
	what = slices.Sorted(maps.Keys(p.Metadata.Annotations))
	s.status.Held = len(what) == 0
	if s.o.Condition && s.ready && !s.own.available {
		now := metav1.Now()
		p.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: reasonUp,
			Message: "Flannel is running on this node", LastTransitionTime: now, LastHeartbeatTime: now,
		}}
		what = append(what, string(corev1.NodeNetworkUnavailable))
	}
	return p, what
}

// wrote takes in the outcome of a write.
func (s *Source) wrote(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.write
	s.write = ""
	if err != nil {
		s.write = err.Error()
	}
	if s.write == before {
		return
	}
	if s.write != "" {
		s.log.Warn("write node annotations failed, retrying", "reason", err)
	}
	s.changed.Set()
}
