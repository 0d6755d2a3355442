package podautoscaler

import (
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// history is what an autoscaler recommended and did, as far back as its rules look.
type history struct {
	recommended []recommendation
	ups, downs  []change
}

type recommendation struct {
	at       time.Time
	replicas int32
}

type change struct {
	at time.Time
	by int32
}

// rules are the behaviour with everything filled in. Those of an autoscaler that names none are the documented defaults.
type rules struct{ up, down rule }

type rule struct {
	window   time.Duration
	selects  autoscalingv2.ScalingPolicySelect
	policies []autoscalingv2.HPAScalingPolicy
}

// downWindow is how long the highest recommendation holds, unless the behaviour says otherwise.
const downWindow = 5 * time.Minute

func rulesOf(b *autoscalingv2.HorizontalPodAutoscalerBehavior) rules {
	percent := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}
	pods := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}
	r := rules{
		up:   rule{0, autoscalingv2.MaxChangePolicySelect, []autoscalingv2.HPAScalingPolicy{pods, percent}},
		down: rule{downWindow, autoscalingv2.MaxChangePolicySelect, []autoscalingv2.HPAScalingPolicy{percent}},
	}
	if b == nil {
		return r
	}
	r.up.take(b.ScaleUp)
	r.down.take(b.ScaleDown)
	return r
}

func (r *rule) take(given *autoscalingv2.HPAScalingRules) {
	if given == nil {
		return
	}
	if given.StabilizationWindowSeconds != nil {
		r.window = time.Duration(*given.StabilizationWindowSeconds) * time.Second
	}
	if given.SelectPolicy != nil {
		r.selects = *given.SelectPolicy
	}
	if len(given.Policies) > 0 {
		r.policies = given.Policies
	}
}

func (r *rule) longestPeriod() (longest time.Duration) {
	for _, p := range r.policies {
		longest = max(longest, time.Duration(p.PeriodSeconds)*time.Second)
	}
	return longest
}

func (h *history) recommend(at time.Time, replicas int32) {
	h.recommended = append(h.recommended, recommendation{at, replicas})
}

// stabilize damps: up only as far as the lowest recommendation of the window for going up, down only as far as the highest of that for going down.
func (h *history) stabilize(now time.Time, r rules, current, wanted int32) (stable int32, reason, message string) {
	lowest, highest := wanted, wanted
	keep := max(r.up.window, r.down.window)
	h.recommended = slices.DeleteFunc(h.recommended, func(old recommendation) bool { return now.Sub(old.at) >= keep })
	for _, old := range h.recommended {
		if now.Sub(old.at) < r.up.window {
			lowest = min(lowest, old.replicas)
		}
		if now.Sub(old.at) < r.down.window {
			highest = max(highest, old.replicas)
		}
	}
	h.remember(now, wanted)
	stable = min(max(current, lowest), highest)
	switch {
	case stable == wanted:
		return stable, "ReadyForNewScale", "recommended size matches current size"
	case wanted >= current:
		return stable, "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation"
	}
	return stable, "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation"
}

// remember a recommendation. Of equal ones in a row the first and the last will do, for they span the same time.
func (h *history) remember(now time.Time, wanted int32) {
	if n := len(h.recommended); n >= 2 && h.recommended[n-1].replicas == wanted && h.recommended[n-2].replicas == wanted {
		h.recommended[n-1].at = now
		return
	}
	h.recommend(now, wanted)
}

// limit keeps a change to what the policies and the bounds allow.
func (h *history) limit(now time.Time, r rules, current, wanted, least, most int32) (replicas int32, reason, message string) {
	switch {
	case wanted > current:
		allowed := most
		reason, message = "TooManyReplicas", "the desired replica count is more than the maximum replica count"
		if fastest := max(h.upLimit(now, &r.up, current), current); allowed > fastest {
			allowed, reason, message = fastest, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
		}
		if wanted > allowed {
			return allowed, reason, message
		}
	case wanted < current:
		allowed := least
		reason, message = "TooFewReplicas", "the desired replica count is less than the minimum replica count"
		if fastest := min(h.downLimit(now, &r.down, current), current); allowed < fastest {
			allowed, reason, message = fastest, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"
		}
		if wanted < allowed {
			return allowed, reason, message
		}
	}
	return wanted, "DesiredWithinRange", "the desired count is within the acceptable range"
}

// upLimit and downLimit are how far the policies let go now: each from where the count was when its period began.
func (h *history) upLimit(now time.Time, r *rule, current int32) int32 {
	limits := h.limits(now, r, current, func(start, by int32, percent bool) int32 {
		if percent {
			return clamp(math.Ceil(float64(start) * (1 + float64(by)/100)))
		}
		return clamp(float64(start) + float64(by))
	})
	switch {
	case r.selects == autoscalingv2.DisabledPolicySelect || len(limits) == 0:
		return current
	case r.selects == autoscalingv2.MinChangePolicySelect:
		return slices.Min(limits)
	}
	return slices.Max(limits)
}

func (h *history) downLimit(now time.Time, r *rule, current int32) int32 {
	limits := h.limits(now, r, current, func(start, by int32, percent bool) int32 {
		if percent {
			return clamp(math.Trunc(float64(start) * (1 - float64(by)/100)))
		}
		return clamp(float64(start) - float64(by))
	})
	switch {
	case r.selects == autoscalingv2.DisabledPolicySelect || len(limits) == 0:
		return current
	case r.selects == autoscalingv2.MinChangePolicySelect:
		return slices.Max(limits)
	}
	return slices.Min(limits)
}

func (h *history) limits(now time.Time, r *rule, current int32, step func(start, by int32, percent bool) int32) []int32 {
	out := make([]int32, 0, len(r.policies))
	for _, p := range r.policies {
		period := time.Duration(p.PeriodSeconds) * time.Second
		start := current - since(h.ups, now.Add(-period)) + since(h.downs, now.Add(-period))
		out = append(out, step(start, p.Value, p.Type == autoscalingv2.PercentScalingPolicy))
	}
	return out
}

func since(changes []change, begin time.Time) (sum int32) {
	for _, c := range changes {
		if c.at.After(begin) {
			sum += c.by
		}
	}
	return sum
}

func clamp(v float64) int32 { return int32(min(max(v, 0), math.MaxInt32)) }

// scaled notes a change that was made, and forgets those that no policy looks at any more.
func (h *history) scaled(now time.Time, from, to int32, b *autoscalingv2.HorizontalPodAutoscalerBehavior) {
	r := rulesOf(b)
	longest := max(r.up.longestPeriod(), r.down.longestPeriod())
	old := func(c change) bool { return now.Sub(c.at) > longest }
	h.ups, h.downs = slices.DeleteFunc(h.ups, old), slices.DeleteFunc(h.downs, old)
	if to > from {
		h.ups = append(h.ups, change{now, to - from})
	} else {
		h.downs = append(h.downs, change{now, from - to})
	}
}
