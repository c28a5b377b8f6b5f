"""What waits for people, and whether anything still comes in."""

from dataclasses import replace
from datetime import timedelta

from rollout.features.reports.figures.facts import SiteActivity, compute_pending_work
from rollout.features.reports.inputs.inputs import PendingReviews

HOUR = timedelta(hours=1)


def test_a_replay_has_no_desk_and_says_so(told):
    inputs, _ = told
    desk = compute_pending_work(inputs)
    assert (desk.live, desk.site_activities, desk.oldest) == (False, (), None)


def test_what_waits_is_added_over_sites_and_the_longest_silent_stand_first(told):
    inputs, _ = told
    at = inputs.last
    sites = [site.id for site in inputs.policy.sites]
    live = replace(
        inputs,
        made_at=at,
        pending_reviews=(
            PendingReviews(sites[0], open=2, overdue=1, expiring=1, oldest=at - HOUR),
            PendingReviews(sites[1], open=3, overdue=0, expiring=0, oldest=at - 5 * HOUR),
        ),
        last_activity={sites[0]: at - HOUR},
    )
    desk = compute_pending_work(live)
    assert (desk.live, desk.open, desk.overdue, desk.expiring) == (True, 5, 1, 1)
    assert desk.oldest == at - 5 * HOUR
    assert desk.site_activities[-1] == SiteActivity(sites[0], at - HOUR)
    assert [heard.last_activity_at for heard in desk.site_activities[:-1]] == [None] * (
        len(sites) - 1
    )
