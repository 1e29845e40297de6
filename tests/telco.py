"""A file of a telephone company's customers, with the oddities of those that companies publish, and
what is to become of each row, worked out beside it.

No row is anybody's: every value is drawn by a seed.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

ROWS = 7_043
# As a file that is published names its columns. Those after it are none of the contract's.
HEADER = (
    *("customerID", "gender", "SeniorCitizen", "Partner", "Dependents", "tenure", "PhoneService"),
    *("MultipleLines", "InternetService", "OnlineSecurity", "Contract", "PaperlessBilling"),
    *("PaymentMethod", "MonthlyCharges", "TotalCharges", "Churn"),
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
YES = {"Yes": True, "No": False}


@dataclass(frozen=True)
class Telco:
    """header, lines: of the file, as texts. wanted: the rows of gold.dim_telco_customer, by
    customer, without key and time."""

    header: tuple[str, ...]
    lines: list[list[str]]
    wanted: dict[str, dict[str, Any]]

    def write(self, file: Path) -> Path:
        with file.open("w", newline="") as text:
            csv.writer(text, lineterminator="\r\n").writerows([self.header, *self.lines])
        return file


def telco(rows: int = ROWS, seed: int = 7) -> Telco:
    """Of those with a tenure of 0 the total is a blank, as such files have it."""
    chosen = random.Random(seed)
    lines, wanted = [], {}
    for number in range(rows):
        customer = f"{number:04d}-{''.join(chosen.choices(LETTERS, k=5))}"
        # Eleven of them came this month.
        tenure = 0 if number % 640 == 3 else chosen.randint(1, 72)
        cents = chosen.randint(1825, 11875)
        # A file says 20.0 and 20, not 20.00.
        monthly = Decimal(cents) / 100
        total = (monthly * tenure + chosen.choice((-1, 0, 1))).max(Decimal(0))
        values = {
            "customerID": customer,
            "gender": chosen.choice(("Female", "Male")),
            "SeniorCitizen": chosen.choice("0001"),
            "Partner": chosen.choice(("Yes", "No")),
            "Dependents": chosen.choice(("Yes", "No")),
            "tenure": str(tenure),
            "PhoneService": chosen.choice(("Yes", "No")),
            "MultipleLines": chosen.choice(("Yes", "No", "No phone service")),
            "InternetService": chosen.choice(("DSL", "Fiber optic", "No")),
            "OnlineSecurity": chosen.choice(("Yes", "No", "No internet service")),
            "Contract": chosen.choice(("Month-to-month", "One year", "Two year")),
            "PaperlessBilling": chosen.choice(("Yes", "No")),
            "PaymentMethod": chosen.choice(("Mailed check", "Bank transfer (automatic)")),
            "MonthlyCharges": f"{monthly.normalize():f}",
            "TotalCharges": f"{total.normalize():f}" if tenure else " ",
            "Churn": chosen.choice(("Yes", "No")),
        }
        lines.append([values[name] for name in HEADER])
        wanted[customer] = {
            "customer_id": customer,
            "gender": values["gender"].lower(),
            "senior_citizen": values["SeniorCitizen"] == "1",
            "partner": YES[values["Partner"]],
            "dependents": YES[values["Dependents"]],
            "tenure": tenure,
            "phone_service": YES[values["PhoneService"]],
            "internet_service": values["InternetService"].lower(),
            "contract": values["Contract"].lower(),
            "monthly_charges": monthly.quantize(Decimal("0.01")),
            # Blank only where there was no month yet.
            "total_charges": (total if tenure else Decimal(0)).quantize(Decimal("0.01")),
            "first_name": "unknown",
            "last_name": "unknown",
            "email": None,
            "is_inferred": False,
        }
    return Telco(HEADER, lines, wanted)
