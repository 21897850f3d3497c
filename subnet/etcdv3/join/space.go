package join

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Space is how much of its file a member uses, in bytes.
type Space struct {
	Size, Used, Quota int64
	Alarm             bool // it takes no changes, for the file has reached the quota
	Learner           bool // the member has no vote yet, and etcd lets nobody maintain its file
}

// Space asks one member, and no other.
func (a *Admin) Space(ctx context.Context, endpoint string) (Space, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	s, err := a.client.Status(ctx, endpoint)
	if err != nil {
		return Space{}, fmt.Errorf("read the size of the embedded etcd: %w", err)
	}
	out := Space{Size: s.DbSize, Used: s.DbSizeInUse, Quota: s.DbSizeQuota, Learner: s.IsLearner}
	if out.Learner {
		return out, nil
	}
	alarms, err := a.client.AlarmList(ctx)
	if err != nil {
		return Space{}, fmt.Errorf("list alarms of the embedded etcd: %w", err)
	}
	for _, alarm := range alarms.Alarms {
		if alarm.MemberID == s.Header.MemberId && alarm.Alarm == pb.AlarmType_NOSPACE {
			out.Alarm = true
		}
	}
	return out, nil
}

// Compact drops the history of the store up to now.
func (a *Admin) Compact(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, defragTime)
	defer cancel()
	now, err := a.client.Get(ctx, storeKey, clientv3.WithCountOnly())
	if err == nil {
		_, err = a.client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		return fmt.Errorf("compact the store: %w", err)
	}
	return nil
}

// Defragment has one member write its file anew, without what is not in use. It answers nothing meanwhile.
func (a *Admin) Defragment(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, defragTime)
	defer cancel()
	if _, err := a.client.Defragment(ctx, endpoint); err != nil {
		return fmt.Errorf("defragment the store: %w", err)
	}
	return nil
}

// Disarm has the member at an endpoint take changes again.
func (a *Admin) Disarm(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	s, err := a.client.Status(ctx, endpoint)
	if err == nil {
		_, err = a.client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: s.Header.MemberId, Alarm: pb.AlarmType_NOSPACE})
	}
	if err != nil {
		return fmt.Errorf("clear the alarm of the store: %w", err)
	}
	return nil
}

// defragTime bounds what takes as long as the store is large.
const defragTime = 12 * callTime
