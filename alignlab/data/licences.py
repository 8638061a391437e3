"""Licences of data sets, as their cards on the hub say them."""

LICENCES = {
    "toy": "apache-2.0",
    "pku_saferlhf": "cc-by-nc-4.0",
    "c2_eval": "cc-by-nc-4.0",
    "beavertails": "cc-by-nc-4.0",
    "hh_rlhf": "mit",
    "ultrafeedback": "mit",
    "helpsteer": "cc-by-4.0",
}
"""dataset.kind -> licence of its rows. Of a file in the same columns it is the columns' first owner's."""
